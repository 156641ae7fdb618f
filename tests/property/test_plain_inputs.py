"""The short ways to read plain numbers and times read what the long ways read, and leave the rest to them."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from shardforge.errors import QueryError
from shardforge.sql.types import datetime_text, numeric

_YEARS = st.sampled_from([0, 1, 1999, 2000, 2024, 9999])
_FRACTIONS = st.sampled_from(
    ["", ".1", ".123456", ".1234567", ".12345a", ". 12345", ".+12345", ",123456", ".12345٣"]
)
_ZONES = st.sampled_from(
    ["", "Z", "z", "+00", "-00", "+05", "-15", "+16", "+5", "+05:30", "-0730", " ", "+٠٠"]
)
_TIMES = st.builds(
    "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
    _YEARS, st.integers(0, 14), st.integers(0, 32), st.sampled_from(" T_t"),
    st.integers(0, 25), st.integers(0, 61), st.integers(0, 61), _FRACTIONS, _ZONES,
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A time of which one character may be another one, or the end missing."""
    text = draw(_TIMES)
    at = draw(st.integers(0, len(text) - 1))
    match draw(st.integers(0, 3)):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + draw(st.sampled_from("0123456789-:. TZ+W٣_,")) + text[at + 1 :]
    return text


@given(damaged())
@example("2024-01-01 00:00:00+00")
@example("2024-W01-1 00:00:00")
@example("2024-02-29T23:59:59.999999-15")
def test_plain_times(text: str) -> None:
    assert datetime_text._fast_timestamp(text) == datetime_text._regular_timestamp(text)


@given(st.from_regex(r"[+-]?[0-9]{1,110}(\.[0-9]{0,110})?", fullmatch=True))
@example("-0")
@example("-0.00")
@example("+007.50")
@example("٣")
@example("1_000")
def test_plain_numbers(text: str) -> None:
    try:
        read = numeric.parse_numeric(text)
    except QueryError:
        assert not text.isascii() or "_" in text
        return
    expected = numeric.checked(Decimal(text))
    assert read.as_tuple() == expected.as_tuple()
