"""What a model file is, by its header or its shape alone."""
