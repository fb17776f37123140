"""Reading, cleaning and splitting question-answer rows."""
