"""Figures of a run: their style, and its curves."""
