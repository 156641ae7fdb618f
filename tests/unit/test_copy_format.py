"""COPY's text and CSV formats: round trips, and PostgreSQL's own answers for the odd cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardforge.errors import QueryError
from shardforge.sql.session.copy_format import CopyFormat, RecordReader, line_writer

TEXT = CopyFormat()
CSV = CopyFormat(csv=True, delimiter=",", null="")

fields = st.lists(
    st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
    min_size=2,
    max_size=4,
)


def read(form: CopyFormat, data: bytes, piece: int | None = None) -> list[list[str | None]]:
    reader = RecordReader(form)
    step = piece or max(len(data), 1)
    records = []
    for start in range(0, len(data), step):
        records += reader.feed(data[start : start + step])
    return records + reader.finish()


@given(rows=st.lists(fields, min_size=1, max_size=4), piece=st.integers(1, 7), csv=st.booleans())
def test_what_is_written_is_read_back(rows: list[list[str | None]], piece: int, csv: bool) -> None:
    form = CSV if csv else TEXT
    write = line_writer(form)
    data = "".join(write(row) for row in rows).encode()
    assert read(form, data, piece) == rows


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"a\tb\n", [["a", "b"]]),
        (b"\\N\t\n", [[None, ""]]),
        (b"a\\tb\t\\\\N\n", [["a\tb", "\\N"]]),
        (b"\\101\t\\x42\n", [["A", "B"]]),
        (b"one\\\ntwo\tx\n", [["one\ntwo", "x"]]),
        (b"a\tb\r\nc\td\r\n", [["a", "b"], ["c", "d"]]),
        (b"a\tb\n\\.\nignored\n", [["a", "b"]]),
        (b"a\tb", [["a", "b"]]),
    ],
)
def test_text(data: bytes, records: list[list[str | None]]) -> None:
    assert read(TEXT, data) == records


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b'1,"a,b"\n', [["1", "a,b"]]),
        (b'1,""\n', [["1", ""]]),
        (b"1,\n", [["1", None]]),
        (b'"x""y",z\n', [['x"y', "z"]]),
        (b'"two\nlines",z\n', [["two\nlines", "z"]]),
        (b",\n", [[None, None]]),
    ],
)
def test_csv(data: bytes, records: list[list[str | None]]) -> None:
    assert read(CSV, data) == records


def test_an_unterminated_quote_is_an_error() -> None:
    with pytest.raises(QueryError, match="unterminated CSV quoted field"):
        read(CSV, b'1,"abc\n')


def test_bytes_that_are_not_utf8_are_an_error() -> None:
    with pytest.raises(QueryError) as caught:
        read(TEXT, b"\xff\xfe and more\n")
    assert caught.value.sqlstate == "22021"
