"""The whole job and its stages."""
