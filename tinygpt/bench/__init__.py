"""Speed and memory of this machine: `tinygpt benchmark`."""
