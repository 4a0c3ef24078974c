"""What strangers wrote, made harmless before it is shown, stored or used as a name."""
