"""The web page on which a model writes: `tinygpt web`."""
