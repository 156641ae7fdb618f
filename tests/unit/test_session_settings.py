"""Settings: SET, SET LOCAL, RESET and what a rollback undoes."""

from __future__ import annotations

import pytest

from shardforge.errors import QueryError
from shardforge.sql.session.settings import Settings, split_identifiers


def test_local_ends_with_the_transaction_and_session_values_stay() -> None:
    settings = Settings()
    settings.set("timezone", "Europe/Paris")
    settings.set("statement_timeout", "1500", local=True)
    assert (settings.timezone, settings.statement_timeout_ms) == ("Europe/Paris", 1500)
    settings.end_transaction(committed=True)
    assert (settings.timezone, settings.statement_timeout_ms) == ("Europe/Paris", 0)


def test_rollback_undoes_every_set() -> None:
    settings = Settings()
    settings.set("timezone", "Asia/Tokyo")
    mark = settings.mark()
    settings.set("timezone", "Europe/Paris")
    settings.rollback_to(mark)
    assert settings.timezone == "Asia/Tokyo"
    settings.end_transaction(committed=False)
    assert settings.timezone == "UTC"


def test_values_are_shown_as_postgresql_shows_them() -> None:
    settings = Settings()
    settings.set("statement_timeout", "90000")
    assert settings.show("statement_timeout") == "90s"
    settings.set("statement_timeout", "1 min")
    assert settings.show("statement_timeout") == "1min"
    settings.set("datestyle", "german"[:0] or "dmy")
    assert settings.show("DateStyle") == "ISO, DMY"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("europe/paris", "Europe/Paris"),
        ("US/pacific", "US/Pacific"),
        ("Utc", "UTC"),
        ("est5edt", "EST5EDT"),
        ("-5", "<-05>+05"),
        ("5.5", "<+05:30>-05:30"),
        ("1e1", "<+10>-10"),
        ("+02:30", "+02:30"),
        ("foo-3", "FOO-3"),
        ("interval '-3:30'", "<-03:30>+03:30"),
        ("INTERVAL '3:20:10'", "<+03:20:10>-03:20:10"),
    ],
)
def test_time_zones_in_any_case_are_shown_as_the_database_spells_them(
    value: str, shown: str
) -> None:
    settings = Settings()
    settings.set("TimeZone", value)
    assert settings.show("timezone") == shown


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ("pst", ""),
        ("", ""),
        ("../etc/passwd", ""),
        ("interval '1:30", ""),
        ("168", "UTC timezone offset is out of range."),
        ("interval '1 day'", "Cannot specify days in time zone interval."),
        ("interval '1 mon'", "Cannot specify months in time zone interval."),
    ],
)
def test_what_is_no_time_zone(value: str, detail: str) -> None:
    with pytest.raises(QueryError) as caught:
        Settings().set("TimeZone", value)
    assert (caught.value.sqlstate, caught.value.detail) == ("22023", detail)
    assert caught.value.message == f'invalid value for parameter "TimeZone": "{value}"'


@pytest.mark.parametrize(
    ("name", "value", "sqlstate"),
    [
        ("no_such_parameter", "1", "42704"),
        ("timezone", "Mars/Olympus", "22023"),
        ("datestyle", "German", "22023"),
        ("server_version", "16", "55P02"),
        ("client_encoding", "latin1", "22023"),
        ("standard_conforming_strings", "off", "22023"),
        ("statement_timeout", "soon", "22023"),
    ],
)
def test_bad_values_are_refused(name: str, value: str, sqlstate: str) -> None:
    with pytest.raises(QueryError) as caught:
        Settings().set(name, value)
    assert caught.value.sqlstate == sqlstate


def test_dotted_names_belong_to_the_application() -> None:
    settings = Settings()
    settings.set("myapp.tenant", "blue")
    assert settings.show("myapp.tenant") == "blue"
    settings.end_transaction(committed=False)
    assert settings.get("myapp.tenant") is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"$user", public', ("$user", "public")),
        ("", ()),
        ("A , b", ("a", "b")),
        ('"x,""y"', ('x,"y',)),
    ],
)
def test_search_path(text: str, names: tuple[str, ...]) -> None:
    assert split_identifiers(text) == names


def test_unclosed_quotes_in_search_path_are_refused() -> None:
    with pytest.raises(QueryError, match="search_path"):
        split_identifiers('"abc')
