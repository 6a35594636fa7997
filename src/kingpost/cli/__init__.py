"""The `kingpost` command: one module per command group, imported only when it is called."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `kingpost` command. Exit codes are those of `kingpost.cli.failure`."""
    from kingpost.cli.failure import run
    from kingpost.cli.root import root

    sys.exit(run(root, sys.argv[1:]))
