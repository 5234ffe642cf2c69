"""Text ↔ token ids: tokenizers of characters, byte pairs and SentencePiece."""
