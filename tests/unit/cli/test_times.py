"""Times as typed."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.cli import times
from kingpost.errors import InvalidInputError

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert times.parse_duration_s(text) == seconds


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s"
    assert times.parse_duration_s(text) == hours * 3600 + minutes * 60 + seconds


@given(st.text())
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        assert isinstance(times.parse_since_ms(text, NOW), int)
    except InvalidInputError as error:
        assert error.message  # noqa: PT017


def test_since() -> None:
    now_ms = int(NOW.timestamp() * 1000)
    assert times.parse_since_ms("10m", NOW) == now_ms - 600_000
    assert times.parse_since_ms("2026-11-21T11:00:00+00:00", NOW) == now_ms - 3_600_000
    assert times.parse_since_ms("2026-11-21T11:00:00Z", NOW) == now_ms - 3_600_000


@pytest.mark.parametrize("text", ["", "10", "m", "10x", "-5m", "10 m", "20261121"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidInputError):
        times.parse_since_ms(text, NOW)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2026, 11, 21), timezones=st.just(UTC)))  # noqa: DTZ001
def test_an_age_is_short(moment: datetime) -> None:
    assert times.age(moment.isoformat(), NOW)[-1] in "smhd"
