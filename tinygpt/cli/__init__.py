"""The `tinygpt` command."""
