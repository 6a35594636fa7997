"""`python -m kingpost`: the same as the `kingpost` command."""

from kingpost.cli import main

if __name__ == "__main__":
    main()
