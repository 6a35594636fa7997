"""The `kingpost` command: one module per command group, imported only when it is called."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `kingpost` command."""
    from kingpost.cli.root import root

    root()
