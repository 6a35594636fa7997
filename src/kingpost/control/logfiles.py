"""Log files read as the contract shows them: level, request id and filters. No writing."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from kingpost import contract
from kingpost.contract import LogLevel
from kingpost.engine.logfile import Line, read_lines
from kingpost.errors import InvalidInputError

BUILD = "build"
"""The folder of the build's and the platform's lines, beside those of the replicas."""

_LEVELS = {
    "DEBUG": LogLevel.DEBUG,
    "INFO": LogLevel.INFO,
    "WARN": LogLevel.WARNING,
    "WARNING": LogLevel.WARNING,
    "ERROR": LogLevel.ERROR,
    "CRITICAL": LogLevel.ERROR,
    "FATAL": LogLevel.ERROR,
}
_ORDER = list(LogLevel)
_MAX_PATTERN = 256


@dataclass(frozen=True, kw_only=True)
class LogQuery:
    """Times in epoch nanoseconds; `start_ns` inclusive, `end_ns` exclusive. Text filters match
    the message; `includes` must all be in it, `excludes` none."""

    start_ns: int
    end_ns: int
    newest_first: bool = True
    limit: int = contract.DEFAULT_LOG_LIMIT
    min_level: LogLevel | None = None
    replica: str | None = None
    request_id: str | None = None
    component: str | None = None
    search_pattern: str | None = None
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogLine:
    """`replica` is None for lines of the build and of the platform."""

    timestamp_ns: int
    message: str
    replica: str | None = None
    request_id: str | None = None
    level: LogLevel | None = None


class _Structured(msgspec.Struct):
    """The truss server's JSON lines (truss/templates/shared/log_config.py)."""

    message: str
    levelname: str | None = None
    level: str | None = None
    request_id: str | None = None
    exc_info: str | None = None


_decoder = msgspec.json.Decoder(_Structured)


def read(folders: Sequence[Path], query: LogQuery) -> list[LogLine]:
    """The lines that match, at most `query.limit`, newest first unless asked otherwise."""
    keep = _filter(query)
    sources = [
        source for folder in folders for source in _sources(folder) if _wanted(source.name, query)
    ]
    unfiltered = keep is None
    streams = [
        _lines(source, query, limit=query.limit if unfiltered else None) for source in sources
    ]
    merged: Iterable[LogLine] = heapq.merge(
        *streams, key=lambda line: line.timestamp_ns, reverse=query.newest_first
    )
    if keep is not None:
        merged = filter(keep, merged)
    return list(islice(merged, query.limit))


def parse(line: Line, replica: str | None) -> LogLine:
    """One line of a file as the contract has it."""
    if line.text.startswith("{"):
        try:
            found = _decoder.decode(line.text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            pass
        else:
            level = _LEVELS.get((found.levelname or found.level or "").upper())
            message = f"{found.message}\n{found.exc_info}" if found.exc_info else found.message
            return LogLine(line.at_ns, message, replica, found.request_id, level)
    return LogLine(line.at_ns, line.text, replica)


def _sources(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []


def _wanted(source: str, query: LogQuery) -> bool:
    if query.component is not None and (query.component == BUILD) != (source == BUILD):
        return False
    return query.replica is None or query.replica == source


def _lines(folder: Path, query: LogQuery, *, limit: int | None) -> list[LogLine]:
    replica = None if folder.name == BUILD else folder.name
    found = read_lines(
        folder,
        start_ns=query.start_ns,
        end_ns=query.end_ns,
        newest_first=query.newest_first,
        limit=limit,
    )
    return [parse(line, replica) for line in found]


def _filter(query: LogQuery) -> Callable[[LogLine], bool] | None:
    """The filters of a query as one test; None when it has none. A pattern is RE2 (contract)."""
    tests: list[Callable[[LogLine], bool]] = []
    if query.min_level is not None:
        allowed = set(_ORDER[_ORDER.index(query.min_level) :])
        tests.append(lambda line: line.level in allowed)
    if query.request_id is not None:
        tests.append(lambda line: line.request_id == query.request_id)
    if query.search_pattern:
        pattern = _compile(query.search_pattern)
        tests.append(lambda line: pattern(line.message))
    if query.includes:
        tests.append(lambda line: all(part in line.message for part in query.includes))
    if query.excludes:
        tests.append(lambda line: not any(part in line.message for part in query.excludes))
    if not tests:
        return None
    return lambda line: all(test(line) for test in tests)


def _compile(pattern: str) -> Callable[[str], bool]:
    if len(pattern) > _MAX_PATTERN:
        raise InvalidInputError(f"search_pattern is longer than {_MAX_PATTERN} characters.")
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise InvalidInputError(
            f"search_pattern can't be used as a regular expression (RE2): {error}."
        ) from error
    return lambda text: compiled.search(text) is not None
