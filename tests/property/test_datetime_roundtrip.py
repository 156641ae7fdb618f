"""Dates, times and intervals survive text and binary form, and arithmetic undoes itself."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from shardforge.sql.functions.datetime_arithmetic import timestamp_mi, timestamp_pl_interval
from shardforge.sql.functions.interval_arithmetic import interval_mi, interval_pl
from shardforge.sql.types import oids
from shardforge.sql.types import registry as types
from shardforge.sql.types.datetime_calendar import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    END_DATE,
    END_TIMESTAMP,
    MIN_DATE,
    MIN_TIMESTAMP,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
    date_fields,
    days_of,
    join,
    split,
)
from shardforge.sql.types.values import Interval, TimeTz
from tests.golden.calls import Settings

DATES = st.one_of(
    st.integers(MIN_DATE, END_DATE - 1),
    st.integers(-3000, 20_000),
    st.sampled_from([DATE_INFINITY, DATE_MINUS_INFINITY]),
)
FINITE = st.one_of(
    st.integers(MIN_TIMESTAMP, END_TIMESTAMP - 1), st.integers(-(10**15), 2 * 10**15)
)
MOMENTS = st.one_of(FINITE, st.sampled_from([TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY]))
TIMES = st.integers(0, 86_400_000_000)
INTERVALS = st.builds(
    Interval,
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1),
)
SMALL = st.builds(Interval, st.just(0), st.integers(-9999, 9999), st.integers(-(10**13), 10**13))
ZONES = st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata", "<+01>-01:30"])


def survives(oid: int, value: object, zone: str = "UTC") -> None:
    session = Settings(zone)
    text = types.output_function(oid, session)(value)
    assert types.input_function(oid, session)(text) == value, text
    assert types.receive_function(oid, session)(types.send_function(oid, session)(value)) == value


@given(DATES)
def test_dates(value: int) -> None:
    survives(oids.DATE, value)


@given(MOMENTS)
def test_timestamps(value: int) -> None:
    survives(oids.TIMESTAMP, value)


@given(MOMENTS.filter(lambda v: abs(v) > 2**62 or abs(v) < 2**61), ZONES)
def test_timestamps_with_time_zone(value: int, zone: str) -> None:
    near_an_end = not MIN_TIMESTAMP + 10**12 < value < END_TIMESTAMP - 10**12
    if near_an_end and abs(value) < 2**63 - 1:
        return
    survives(oids.TIMESTAMPTZ, value, zone)


@given(TIMES, st.integers(-57_599, 57_599))
def test_times(value: int, zone: int) -> None:
    survives(oids.TIME, value)
    survives(oids.TIMETZ, TimeTz(value, zone))


@given(INTERVALS.filter(lambda i: i.micros > -(2**63) and i.days > -(2**31)))
def test_intervals(value: Interval) -> None:
    survives(oids.INTERVAL, value)


@given(FINITE)
def test_fields_and_back(value: int) -> None:
    assert join(split(value)) == value


@given(st.integers(MIN_DATE, END_DATE - 1))
def test_the_calendar_is_one_to_one(days: int) -> None:
    assert days_of(*date_fields(days)) == days


@given(st.integers(-(10**15), 10**15), SMALL)
@settings(max_examples=50)
def test_adding_days_and_seconds_is_undone_by_subtracting(value: int, span: Interval) -> None:
    later = timestamp_pl_interval(value, span)
    assert timestamp_pl_interval(value, timestamp_mi(later, value)) == later


@given(SMALL, SMALL)
def test_interval_addition_is_undone(a: Interval, b: Interval) -> None:
    assert interval_mi(interval_pl(a, b), b) == a
