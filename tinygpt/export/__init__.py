"""A model in other programs' formats: transformers, GGUF, peft."""
