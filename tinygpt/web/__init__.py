"""The web page, `tinygpt web`: chat, generation, surprisal and attention in the browser."""
