"""Where text comes from: Shakespeare's plays, SymPy's pages, your own files, the Hugging Face hub."""
