"""How a training step is computed in the memory that is there."""
