"""`python -m tinygpt` is the `tinygpt` command."""

from tinygpt.cli.main import main

if __name__ == "__main__":
    main()
