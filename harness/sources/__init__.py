"""Where models come from: names, files on this disk, headers, Hugging Face's hub, addresses, Ollama's store, made-up weights."""
