"""A run's directory: names, records of its stages, provenance."""
