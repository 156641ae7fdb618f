"""to_number: read a number through a format picture, as leniently as PostgreSQL does.

A port of its reader, step by step, for the same reason as in `number_format`: what it accepts follows from its steps.
Source: PostgreSQL 15, src/backend/utils/adt/formatting.c (NUM_numpart_from_char, numeric_to_number).
"""

from __future__ import annotations

from decimal import Decimal

from shardforge.errors import QueryError
from shardforge.sql.functions.number_format import Picture, parse_picture
from shardforge.sql.functions.numeric import numeric_mul
from shardforge.sql.functions.numeric_math import numeric_power
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.numeric import numeric_coercion, parse_numeric

_DATA = "0123456789.,+-"
_DIGITS = "0123456789"


class _Reader:
    """Where the reader stands in the text, and what it has read of the number."""

    def __init__(self, picture: Picture, text: str) -> None:
        self.picture = picture
        # One step of a digit is a byte, one of a literal a character.
        self.text = text.encode().decode("latin-1")
        self.at = 0
        self.sign = " "
        self.digits: list[str] = []
        self.before = 0
        self.after = 0
        self.point = False

    def read(self) -> str:
        """The number's text, in numeric's syntax."""
        for node, is_keyword in self.picture.nodes:
            if self.at >= len(self.text):
                break
            if not is_keyword:
                self.at += self._width()
            elif self._keyword(node):
                self.at += 1
        number = "".join(self.digits)
        return self.sign + number.removesuffix(".")

    def _keyword(self, keyword: str) -> bool:
        """Act on a keyword; whether the current character is used up."""
        char = self.text[self.at]
        match keyword:
            case "9" | "0" | "." | "D":
                self._digit(keyword)
                return True
            case "," | "G":
                # Nothing counts as inside the number here, so FM ignores separators.
                return not self.picture.fill and char == ","
            case "L":
                self._skip(1)
            case "TH" | "th":
                self._skip(2)
            case "MI" | "PL" | "SG":
                if char in {"MI": "-", "PL": "+", "SG": "+-"}[keyword]:
                    self.sign = char
                    return True
                self._skip(1)
        return False

    def _skip(self, count: int) -> None:
        while count > 0 and self.at < len(self.text) and self.text[self.at] not in _DATA:
            self.at += self._width()
            count -= 1

    def _width(self) -> int:
        """Bytes of the UTF-8 character here."""
        lead = ord(self.text[self.at])
        return 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _digit(self, keyword: str) -> None:
        if self._peek() == " ":
            self.at += 1
        if not self._peek():
            return
        if self.sign == " " and keyword in "09" and self.before + self.after == 0:
            self._sign_before()
        if not self._peek():
            return
        taken = False
        if self._peek() in _DIGITS:
            if self.point and self.after == self.picture.post:
                return
            self.digits.append(self._peek())
            if self.point:
                self.after += 1
            else:
                self.before += 1
            taken = True
        elif self.picture.decimal and not self.point and self._peek() == ".":
            self.digits.append(".")
            self.point = taken = True
        if self.sign == " " and self.before + self.after > 0:
            self._sign_after(taken=taken)

    def _sign_before(self) -> None:
        char = self._peek()
        if char == "-" or (self.picture.bracket and char == "<"):
            self.sign = "-"
            self.at += 1
        elif char == "+":
            self.sign = "+"
            self.at += 1

    def _sign_after(self, *, taken: bool) -> None:
        following = self.text[self.at + 1 : self.at + 2]
        if self.picture.sign:
            if taken and following and following in "+-":
                self.at += 1
                self.sign = following
        elif not taken and (self.picture.plus or self.picture.minus) and self._peek() in "+-":
            self.sign = self._peek()


@implements("numeric_to_number")
def to_number(text: str, form: str) -> Decimal | None:
    """to_number(text, text)."""
    if not form:
        return None
    picture = parse_picture(form)
    if picture.exponent or picture.roman:
        keyword = "EEEE" if picture.exponent else "RN"
        raise QueryError(f'"{keyword}" not supported for input', "0A000")
    reader = _Reader(picture, text)
    number = parse_numeric(reader.read())
    precision = picture.pre + picture.multi + reader.after
    value: Decimal = numeric_coercion(((precision << 16) | reader.after) + 4, True)(number)
    if picture.shifted:
        return numeric_mul(value, numeric_power(Decimal(10), Decimal(-picture.multi)))
    return value
