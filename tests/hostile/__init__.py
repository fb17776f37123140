"""Hostile input through the real command line: every class in a table, each case with the line that a user sees."""
