"""Where models come from: a class for each kind of reference, and what brings and makes files."""
