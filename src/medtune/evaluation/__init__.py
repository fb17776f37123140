"""What the tuning changed: metrics over the same rows before and after, their comparison and its plain reading."""
