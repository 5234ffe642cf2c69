"""Decoding on a CPU: the GPT as plain loops over arrays (loops.py), compiled to machine code."""
