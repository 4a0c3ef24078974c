"""A small Hugging Face hub on loopback, with faults, for the real huggingface_hub client."""
