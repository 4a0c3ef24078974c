"""Records in, text or figures out: never prints, never opens a file."""
