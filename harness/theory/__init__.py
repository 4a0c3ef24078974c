"""What follows from a GGUF header by reasoning alone: no clock, no file, no process, no environment."""
