"""Where a model's bytes lie, and how many there are."""
