"""An adapter merged into its base."""
