"""How results are shown: JSON, or for people; tables with rich on a terminal, plain text otherwise.

Results go to stdout. What happens on the way (progress, logs while waiting) goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Output:
    as_json: bool = False

    @property
    def interactive(self) -> bool:
        """Whether a person sees stderr, for progress bars."""
        return sys.stderr.isatty()

    def result(self, data: Any, human: Callable[[], None]) -> None:
        """Print `data` as JSON, or let `human` print for people."""
        if self.as_json:
            self.json(data)
        else:
            human()

    def json(self, data: Any) -> None:
        indent = 2 if sys.stdout.isatty() else None
        click.echo(json.dumps(data, indent=indent, ensure_ascii=False, default=str))

    def line(self, text: str = "") -> None:
        click.echo(text)

    def note(self, text: str) -> None:
        """Say something on the way; not with `--json`."""
        if not self.as_json:
            click.echo(text, err=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
        if not rows:
            click.echo(empty)
        elif sys.stdout.isatty():
            _rich_table(columns, rows)
        else:
            _plain_table(columns, rows)

    def pairs(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and values, aligned."""
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            click.echo(f"{click.style(name.ljust(width), bold=True)}  {value}")

    @contextlib.contextmanager
    def status(self, text: str) -> Iterator[Callable[[str], None]]:
        """A spinner with a changing text on a terminal; else each new text is one line."""
        if not self.interactive:
            last = [text]
            self.note(text)

            def say(new: str) -> None:
                if new != last[0]:
                    last[0] = new
                    self.note(new)

            yield say
            return
        with _console().status(text) as spinner:
            yield spinner.update

    @contextlib.contextmanager
    def bar(self) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
        """Progress bars by bytes: called with a label and a total, gives what takes advances."""
        if not self.interactive:
            yield lambda _label, _total: _nothing
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, console=_console(), transient=True) as progress:

            def start(label: str, total: int) -> Callable[[int], None]:
                task = progress.add_task(label, total=total)
                return lambda size: progress.advance(task, size)

            yield start


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _nothing(_: int) -> None:
    return None


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    for row in (columns, *rows):
        click.echo("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
