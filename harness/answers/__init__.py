"""Published figures and what follows from them: speeds of machines and models that are not at hand."""
