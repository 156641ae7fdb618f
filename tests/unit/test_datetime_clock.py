"""What depends on the moment: now() and its kin, 'today' and 'now' as input, one-argument age."""

from __future__ import annotations

import pytest

from shardforge.errors import QueryError
from shardforge.sql.functions import datetime_make as make
from shardforge.sql.types import oids
from shardforge.sql.types import registry as types
from shardforge.sql.types.timezone import timezone_setting
from tests.golden.calls import Settings, call, context

NOON = 760_017_600_000_000  # 2024-01-31 12:00 UTC


class WithClock(Settings):
    transaction_us = NOON


def text(oid: int, value: object, settings: Settings) -> str:
    return types.output_function(oid, settings)(value)


def test_current_values_follow_the_session_zone() -> None:
    ctx = context(Settings("America/New_York"), NOON)
    settings = Settings("America/New_York")
    assert text(oids.TIMESTAMPTZ, make.now(ctx), settings) == "2024-01-31 07:00:00-05"
    assert text(oids.DATE, make.current_date(ctx), settings) == "2024-01-31"
    assert text(oids.TIMESTAMP, make.localtimestamp(ctx), settings) == "2024-01-31 07:00:00"
    assert text(oids.TIME, make.localtime(ctx), settings) == "07:00:00"
    assert text(oids.TIMETZ, make.current_time(ctx), settings) == "07:00:00-05"
    assert text(oids.TIMESTAMPTZ, make.current_timestamp(ctx, 0), settings).endswith("07:00:00-05")


@pytest.mark.parametrize(
    ("oid", "word", "expected"),
    [
        (oids.DATE, "today", "2024-01-31"),
        (oids.DATE, "tomorrow", "2024-02-01"),
        (oids.DATE, "yesterday", "2024-01-30"),
        (oids.TIMESTAMP, "now", "2024-01-31 12:00:00"),
        (oids.TIMESTAMP, "tomorrow 10:30", "2024-02-01 10:30:00"),
        (oids.TIME, "now", "12:00:00"),
    ],
)
def test_words_for_the_moment_need_a_clock(oid: int, word: str, expected: str) -> None:
    settings = WithClock()
    assert text(oid, types.input_function(oid, settings)(word), settings) == expected
    with pytest.raises(QueryError) as refused:
        types.input_function(oid, Settings())(word)
    assert refused.value.sqlstate == "0A000"


def test_age_of_one_argument_counts_from_midnight() -> None:
    assert call("age", [("timestamp", "2024-01-30 12:00")], Settings()) == "12:00:00"


def test_time_zone_settings_read_as_set_time_zone_does() -> None:
    assert timezone_setting("europe/paris") == "Europe/Paris"
    assert timezone_setting("+3") == "<+03>-03"
    assert timezone_setting("-3.5") == "<-03:30>+03:30"
    with pytest.raises(QueryError) as unknown:
        timezone_setting("nowhere")
    assert unknown.value.sqlstate == "22023"


def test_a_date_style_other_than_iso_is_refused() -> None:
    with pytest.raises(QueryError) as refused:
        types.output_function(oids.DATE, Settings(datestyle="German, DMY"))
    assert refused.value.sqlstate == "0A000"


def test_series_cross_daylight_saving_by_the_calendar() -> None:
    settings = Settings("America/New_York")
    args = [
        ("timestamptz", "2024-03-09 12:00"),
        ("timestamptz", "2024-03-11 12:00"),
        ("interval", "1 day"),
    ]
    assert call("generate_series", args, settings) == [
        "2024-03-09 12:00:00-05",
        "2024-03-10 12:00:00-04",
        "2024-03-11 12:00:00-04",
    ]
