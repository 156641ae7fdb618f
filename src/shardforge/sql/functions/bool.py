"""Boolean functions beyond comparison. Source: PostgreSQL 15, src/backend/utils/adt/bool.c."""

from __future__ import annotations

from shardforge.sql.functions.registry import implements
from shardforge.sql.types.boolean import parse_bool


@implements("booltext")
def booltext(value: bool) -> str:
    """The cast to text spells the word, unlike the output function."""
    return "true" if value else "false"


@implements("booland_statefunc")
def booland(a: bool, b: bool) -> bool:
    """Both."""
    return a and b


@implements("boolor_statefunc")
def boolor(a: bool, b: bool) -> bool:
    """Either."""
    return a or b


implements("boolin")(parse_bool)
