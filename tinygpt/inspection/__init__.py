"""What happens inside a model: attention, embeddings, the logit lens, surprisal."""
