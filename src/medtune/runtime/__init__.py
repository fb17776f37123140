"""This process: hardware, signals, limits, progress and the terminal."""
