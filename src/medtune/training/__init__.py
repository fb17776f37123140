"""Training: TRL's SFTTrainer over padding-free steps of a fixed number of rows."""
