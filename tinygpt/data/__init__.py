"""Text → splits → tokens → batches."""
