"""Base models, adapters and what every forward pass shares."""
