"""Experiment trackers: a training's curves as they come, and at the end of a run what it found and made."""
