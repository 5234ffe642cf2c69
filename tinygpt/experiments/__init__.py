"""Runs and DVC experiments: their settings and results, comparisons, lineage."""
