"""What speed follows from figures that are known."""
