"""Metrics over the same rows before and after tuning, their comparison and its plain reading."""
