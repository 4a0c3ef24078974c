"""Measure GGUF language models in-process through llama.cpp: speed, memory, time and layers."""

__version__ = "0.1.0"
