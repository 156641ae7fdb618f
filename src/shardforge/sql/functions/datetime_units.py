"""Names of date/time fields as EXTRACT, date_part and date_trunc take them, and the errors about them.

Source: PostgreSQL 15, section 9.9.1 and its unit key words.
"""

from __future__ import annotations

from shardforge.errors import QueryError
from shardforge.sql.types.datetime_tokens import WORDS, Word
from shardforge.sql.types.interval_text import UNITS

_EXTRA = {
    "qtr": "quarter",
    "quarter": "quarter",
    "timezone": "timezone",
    "timezone_h": "timezone_hour",
    "timezone_m": "timezone_minute",
}


def find_unit(name: str) -> str:
    """The field a unit name means, aliases and PostgreSQL's ten-letter cut included; "" when unknown."""
    key = name[:10]
    return UNITS.get(key) or _EXTRA.get(key, "")


def find_field(name: str) -> str:
    """As `find_unit`, with the fields only EXTRACT knows: epoch, dow, julian and so on."""
    unit = find_unit(name)
    if unit:
        return unit
    word, value = WORDS.get(name[:10], (None, ""))
    return str(value) if word in (Word.UNIT, Word.RESERVED) else ""


def not_recognized(unit: str, type_name: str) -> QueryError:
    """22023: no such field."""
    return QueryError(f'unit "{unit}" not recognized for type {type_name}', "22023")


def not_supported(unit: str, type_name: str, detail: str = "") -> QueryError:
    """0A000: a field this type does not have."""
    return QueryError(f'unit "{unit}" not supported for type {type_name}', "0A000", detail=detail)
