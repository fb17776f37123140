"""What a stopped training resumes from."""
