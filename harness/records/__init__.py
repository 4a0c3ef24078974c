"""What was measured: a frozen dataclass for each kind of line, and the journals that hold them."""
