"""A conversation with a model: its turns, and a terminal to hold it in."""
