"""Paths of a pipeline's files, and writing them whole or not at all."""
