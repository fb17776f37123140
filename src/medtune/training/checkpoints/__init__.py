"""What a stopped training goes on from."""
