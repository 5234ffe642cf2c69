"""The HTML report on runs: `tinygpt compare --html`."""
