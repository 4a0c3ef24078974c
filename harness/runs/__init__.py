"""One module a question: from a request to its records."""
