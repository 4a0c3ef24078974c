"""The only place that knows ctypes and llama_cpp."""
