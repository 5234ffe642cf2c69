"""Model folders, ours and transformers': loading, saving, and models to start from."""
