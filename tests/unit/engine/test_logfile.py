from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kingpost.engine import logfile, logwriter
from kingpost.engine.logfile import Line, LogWriter, follow, last_lines, parse_line, read_lines

KINDS = st.sampled_from([b"o", b"e", b"b"])
TEXTS = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=200)


class Ticks:
    """A clock that a test sets."""

    def __init__(self, now: int = 1_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@given(st.integers(0, 2**63), KINDS, TEXTS)
def test_a_line_is_read_as_it_was_written(at: int, kind: bytes, text: str) -> None:
    raw = f"{at} {kind.decode()} {text}".encode()
    assert parse_line(raw) == Line(at, kind.decode(), text)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_line_or_none(raw: bytes) -> None:
    line = parse_line(raw)
    assert line is None or (line.kind in {"o", "e", "b"} and line.at_ns >= 0)


@pytest.mark.parametrize("raw", [b"", b"12", b"12 o", b"x o text", b"12 z text", b"-1 o text"])
def test_what_is_no_line_is_none(raw: bytes) -> None:
    assert parse_line(raw) is None


@given(st.lists(st.binary(max_size=50), max_size=30), st.data())
def test_splitting_loses_nothing_however_chunks_fall(
    lines: list[bytes], data: st.DataObject
) -> None:
    stream = b"\n".join(lines)
    expected = stream.split(b"\n")
    cut = data.draw(st.integers(0, len(stream)))
    first, rest = logwriter.split(stream[:cut])
    second, last = logwriter.split(rest + stream[cut:])
    assert [*first, *second, last] == expected


@given(st.integers(0, 3 * logwriter.MAX_TEXT_BYTES), st.sampled_from(["a", "é", "€", "😀"]))
@settings(max_examples=30, deadline=None)
def test_long_lines_are_cut_between_characters(size: int, character: str) -> None:
    text = character * (size // len(character.encode()))
    lines, rest = logwriter.split(text.encode() + b"\nend")
    assert rest == b"end"
    assert all(len(line) <= logwriter.MAX_TEXT_BYTES for line in lines)
    assert "".join(line.decode() for line in lines) == text


@given(
    st.lists(st.tuples(KINDS, TEXTS, st.integers(0, 5)), max_size=40),
    st.integers(990, 1_100),
    st.integers(990, 1_100),
    st.integers(1, 50),
)
@settings(max_examples=60, deadline=None)
def test_reading_a_range_is_what_filtering_all_gives(
    tmp_path_factory: pytest.TempPathFactory,
    entries: list[tuple[bytes, str, int]],
    start: int,
    end: int,
    limit: int,
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    clock = Ticks()
    writer = LogWriter(str(folder), 1, clock=clock)
    expected = []
    for kind, text, step in entries:
        clock.now += step
        writer.line(kind, text)
        expected.append(Line(clock.now, kind.decode(), text))
    writer.close()
    kept = [line for line in expected if start <= line.at_ns < end]
    oldest = read_lines(folder, start_ns=start, end_ns=end, newest_first=False, limit=limit)
    newest = read_lines(folder, start_ns=start, end_ns=end, newest_first=True, limit=limit)
    assert oldest == kept[:limit]
    assert newest == kept[::-1][:limit]


def test_many_blocks_and_segments_read_alike_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "_BLOCK_BYTES", 97)
    clock = Ticks()
    writer = LogWriter(str(tmp_path), 1, clock=clock)
    for number in range(9_000):
        clock.now += 1
        writer.line(b"o", f"line {number} {'x' * (number % 60)}")
    writer.close()
    assert len(logwriter.segments(str(tmp_path))) > 2
    every = read_lines(tmp_path, newest_first=False, limit=None)
    assert len(every) == 9_000
    assert read_lines(tmp_path, limit=None) == every[::-1]
    for at in range(1_000, 10_002, 531):
        later = [line for line in every if line.at_ns >= at]
        assert read_lines(tmp_path, start_ns=at, newest_first=False, limit=None) == later
        assert read_lines(tmp_path, start_ns=at, limit=None) == later[::-1]
    assert last_lines(tmp_path, 3) == every[-3:]


def test_a_folder_stays_within_its_limit_and_keeps_the_newest(tmp_path: Path) -> None:
    limit = 1024 * 1024
    writer = LogWriter(str(tmp_path), limit)
    for number in range(300):
        writer.feed(b"o", (b"%06d " % number + b"x" * 90 + b"\n") * 200)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit
    writer.close()
    assert last_lines(tmp_path, 1)[0].text.startswith("000299")
    again = LogWriter(str(tmp_path), limit)
    again.feed(b"o", b"y\n" * 300_000)
    again.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit
    assert last_lines(tmp_path, 1)[0].text == "y"


def test_times_never_go_back(tmp_path: Path) -> None:
    clock = Ticks(5_000)
    writer = LogWriter(str(tmp_path), 1, clock=clock)
    writer.line(b"o", "first")
    clock.now = 10
    writer.line(b"o", "second")
    writer.close()
    restarted = LogWriter(str(tmp_path), 1, clock=clock)
    restarted.line(b"o", "third")
    restarted.close()
    times = [line.at_ns for line in read_lines(tmp_path, newest_first=False)]
    assert times == sorted(times)
    assert times[0] == 5_000


def test_an_unfinished_line_waits_and_is_written_at_the_end(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path), 1)
    writer.feed(b"o", b"no end")
    writer.feed(b"e", b"other\n")
    assert [line.text for line in read_lines(tmp_path)] == ["other"]
    writer.close()
    assert [line.text for line in read_lines(tmp_path)] == ["no end", "other"]


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "5.log").write_bytes(b"5 o whole\n6 o torn")
    (tmp_path / "7.log").write_bytes(b"7 o next\n")
    (tmp_path / "notes.txt").write_text("8 o not a segment\n")
    assert [line.text for line in read_lines(tmp_path)] == ["next", "whole"]
    assert [line.text for line in read_lines(tmp_path, newest_first=False)] == ["whole", "next"]


def test_a_full_disk_loses_lines_and_says_so_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LogWriter(str(tmp_path), 1)
    writer.line(b"o", "before")

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(logwriter.os, "write", full)
        writer.line(b"o", "lost")
    writer.line(b"o", "after")
    writer.close()
    texts = [line.text for line in read_lines(tmp_path, newest_first=False)]
    assert texts[0] == "before"
    assert "bytes of output were lost" in texts[1]
    assert texts[2:] == ["after"]


def test_a_folder_that_is_not_there_reads_as_empty(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "absent") == []


async def test_following_gives_old_and_new_lines_over_segments(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path), 1)
    writer.line(b"o", "old")
    over = asyncio.Event()
    seen: list[str] = []

    async def read() -> None:
        async for line in follow(tmp_path, ended=over.is_set):
            seen.append(line.text)
            if line.text == "old":
                for number in range(4):
                    writer.feed(b"e", b"x" * 60_000 + b"\n" + b"%d\n" % number)
            if line.text == "3":
                writer.close()
                over.set()

    await asyncio.wait_for(read(), 30)
    assert [text for text in seen if len(text) < 10] == ["old", "0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(512 * 1024**2, "512 MiB"), (3 * 1024**3 // 2, "1.5 GiB"), (1000, "1000 bytes")],
)
def test_sizes_are_told_for_people(count: int, text: str) -> None:
    assert logwriter.size_text(count) == text
