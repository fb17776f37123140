"""`medtune chat`: a tuned model and its base side by side, on a local page or in a terminal, blinded on request."""
