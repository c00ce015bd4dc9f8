"""What a model costs, what quantizing changed, and what a file holds."""
