"""Projections, adapters and decoder layers as one operation each."""
