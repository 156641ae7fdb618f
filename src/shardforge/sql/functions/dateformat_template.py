"""Templates of to_char, to_date and to_timestamp, such as 'FMDay, DD Month YYYY', into nodes.

Key words are recognized in the spellings PostgreSQL lists (Month, MONTH and month, not mOnTh). Source: PostgreSQL
15, tables 9.27 and 9.28.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]


class NodeKind(enum.Enum):
    """What a piece of a template is."""

    FIELD = 1
    CHARACTER = 2
    SEPARATOR = 3
    SPACE = 4


@dataclass(frozen=True, slots=True)
class TemplateNode:
    """A field (`text` is its key word as spelt) or a literal character."""

    kind: NodeKind
    text: str
    fill: bool = False
    translated: bool = False
    ordinal: str = ""

    @property
    def name(self) -> str:
        """The key word in upper case."""
        return self.text.upper()


_UPPER = [
    "A.D.",
    "A.M.",
    "AD",
    "AM",
    "B.C.",
    "BC",
    "CC",
    "DAY",
    "DDD",
    "DD",
    "DY",
    "D",
    "FF1",
    "FF2",
    "FF3",
    "FF4",
    "FF5",
    "FF6",
    "FX",
    "HH24",
    "HH12",
    "HH",
    "IDDD",
    "ID",
    "IW",
    "IYYY",
    "IYY",
    "IY",
    "I",
    "J",
    "MI",
    "MM",
    "MONTH",
    "MON",
    "MS",
    "OF",
    "P.M.",
    "PM",
    "Q",
    "RM",
    "SSSSS",
    "SSSS",
    "SS",
    "TZH",
    "TZM",
    "TZ",
    "US",
    "WW",
    "W",
    "Y,YYY",
    "YYYY",
    "YYY",
    "YY",
    "Y",
]
_KEYWORDS = sorted(
    {*_UPPER, *(word.lower() for word in _UPPER), "Day", "Dy", "Month", "Mon"},
    key=len,
    reverse=True,
)
DIGIT_FIELDS = frozenset(
    [
        "CC",
        "DDD",
        "DD",
        "D",
        "FF1",
        "FF2",
        "FF3",
        "FF4",
        "FF5",
        "FF6",
        "HH24",
        "HH12",
        "HH",
        "IDDD",
        "ID",
        "IW",
        "IYYY",
        "IYY",
        "IY",
        "I",
        "J",
        "MI",
        "MM",
        "MS",
        "Q",
        "SSSSS",
        "SSSS",
        "SS",
        "TZM",
        "US",
        "WW",
        "W",
        "Y,YYY",
        "YYYY",
        "YYY",
        "YY",
        "Y",
    ]
)
_STARTS = frozenset(word[0] for word in _KEYWORDS)


def is_separator(char: str) -> bool:
    """Whether a character counts as a separator: ASCII punctuation."""
    return char.isascii() and char.isprintable() and not char.isalnum() and char != " "


def _keyword(template: str, at: int) -> str:
    if template[at] not in _STARTS:
        return ""
    return next((word for word in _KEYWORDS if template.startswith(word, at)), "")


@lru_cache(maxsize=512)
def parse_template(template: str) -> tuple[TemplateNode, ...]:
    """The nodes of a template, in order."""
    nodes: list[TemplateNode] = []
    at = 0
    while at < len(template):
        fill = translated = False
        prefix = template[at : at + 2]
        if prefix in ("FM", "fm", "TM", "tm"):
            fill, translated = prefix.upper() == "FM", prefix.upper() == "TM"
            at += 2
            if at >= len(template):
                break
        word = _keyword(template, at)
        if word:
            at += len(word)
            suffix = template[at : at + 2]
            ordinal = suffix if suffix in ("TH", "th") else ""
            at += 2 if ordinal or suffix == "SP" else 0
            nodes.append(TemplateNode(NodeKind.FIELD, word, fill, translated, ordinal))
        elif template[at] == '"':
            at = _quoted(template, at + 1, nodes)
        else:
            if template[at] == "\\" and template.startswith('"', at + 1):
                at += 1
            nodes.append(_literal(template[at]))
            at += 1
    return tuple(nodes)


def _quoted(template: str, at: int, nodes: list[TemplateNode]) -> int:
    """Adds a quoted literal's characters; answers where it ends."""
    while at < len(template) and template[at] != '"':
        if template[at] == "\\" and at + 1 < len(template):
            at += 1
        nodes.append(TemplateNode(NodeKind.CHARACTER, template[at]))
        at += 1
    return at + 1


def _literal(char: str) -> TemplateNode:
    if is_separator(char):
        return TemplateNode(NodeKind.SEPARATOR, char)
    return TemplateNode(NodeKind.SPACE if char in " \t\n\r\f\v" else NodeKind.CHARACTER, char)
