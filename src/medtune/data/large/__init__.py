"""Data larger than memory: read, cleaned, grouped and split with a flat peak of memory."""
