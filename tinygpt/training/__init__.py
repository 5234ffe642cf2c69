"""From initial weights to trained ones: state, optimizer, training loop, resuming."""
