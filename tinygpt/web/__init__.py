"""The web page, `tinygpt web`: generation, surprisal and attention in the browser."""
