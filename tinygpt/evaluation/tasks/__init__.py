"""Tasks with known answers, whose scores mean something for tiny models: beside each stand chance, an n-gram, 100%."""
