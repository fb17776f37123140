"""The configuration: its schema, and recipes that make one."""
