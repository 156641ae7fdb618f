"""to_char for numbers: format pictures of 9, 0, separators, signs, Roman numerals and exponents.

A port of PostgreSQL's formatter, character by character, since its answers in odd cases (FM with trailing zeros,
signs beside blanks, overflow as #) follow from its steps rather than from a rule. The locale is C: a comma groups,
a point is the decimal sign, the currency symbol is a blank.
Source: PostgreSQL 15, src/backend/utils/adt/formatting.c (NUMDesc_prepare, NUM_numpart_to_char, NUM_processor).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache

from shardforge.errors import QueryError
from shardforge.sql.functions.math import numeric_int4
from shardforge.sql.functions.numeric import numeric_mul, numeric_round
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.numeric import EXACT, rescaled

_KEYWORDS = (
    "EEEE", "FM", "MI", "PL", "PR", "RN", "SG", "SP", "TH", ",", ".", "0", "9", "B", "C", "D", "G", "L", "S", "V",
)  # fmt: skip
_ROMAN = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"),
    (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip
Node = tuple[str, bool]
"""A keyword (True) or a literal character (False)."""


def _syntax(message: str) -> QueryError:
    return QueryError(message, "42601")


@dataclass(slots=True)
class Picture:
    """A parsed format: its nodes, and what they say about the number as a whole (NUMDesc)."""

    nodes: list[Node] = field(default_factory=list)
    pre: int = 0
    post: int = 0
    multi: int = 0
    zero_start: int = 0
    zero_end: int = 0
    sign_before: bool = False
    sign_after: bool = False
    pre_sign_digits: int = 0
    fill: bool = False
    zero: bool = False
    decimal: bool = False
    sign: bool = False
    bracket: bool = False
    minus: bool = False
    plus: bool = False
    roman: bool = False
    shifted: bool = False
    exponent: bool = False
    blank: bool = False

    def take(self, keyword: str) -> None:
        """Account for one keyword; 42601 for combinations that make no sense."""
        if self.exponent and keyword != "EEEE":
            raise _syntax('"EEEE" must be the last pattern used')
        match keyword:
            case "9" | "0":
                self._digit(keyword)
            case "B":
                self.blank = self.blank or (self.pre == 0 and self.post == 0 and not self.zero)
            case "D" | ".":
                if self.decimal:
                    raise _syntax("multiple decimal points")
                if self.shifted:
                    raise _syntax('cannot use "V" and decimal point together')
                self.decimal = True
            case "FM":
                self.fill = True
            case "S":
                self._floating_sign()
            case "MI" | "PL" | "SG":
                if self.sign:
                    raise _syntax(f'cannot use "S" and "{keyword}" together')
                self.minus = self.minus or keyword != "PL"
                self.plus = self.plus or keyword != "MI"
            case "PR":
                if self.sign or self.plus or self.minus:
                    raise _syntax('cannot use "PR" and "S"/"PL"/"MI"/"SG" together')
                self.bracket = True
            case "RN":
                self.roman = True
            case "V":
                if self.decimal:
                    raise _syntax('cannot use "V" and decimal point together')
                self.shifted = True
            case "EEEE":
                self._exponent()

    def _digit(self, keyword: str) -> None:
        if self.bracket:
            raise _syntax(f'"{keyword}" must be ahead of "PR"')
        if keyword == "9" and self.shifted:
            self.multi += 1
            return
        if keyword == "0" and not self.zero and not self.decimal:
            self.zero = True
            self.zero_start = self.pre
        if self.decimal:
            self.post += 1
        else:
            self.pre += 1
        if keyword == "0":
            self.zero_end = self.pre + self.post

    def _floating_sign(self) -> None:
        if self.sign:
            raise _syntax('cannot use "S" twice')
        if self.plus or self.minus or self.bracket:
            raise _syntax('cannot use "S" and "PL"/"MI"/"SG"/"PR" together')
        self.sign = True
        if self.decimal:
            self.sign_after = True
        else:
            self.sign_before = True
            self.pre_sign_digits = self.pre

    def _exponent(self) -> None:
        if self.exponent:
            raise _syntax('cannot use "EEEE" twice')
        signs = self.sign or self.bracket or self.minus or self.plus
        if self.blank or self.fill or signs or self.roman or self.shifted:
            raise QueryError(
                '"EEEE" is incompatible with other formats',
                "42601",
                detail='"EEEE" may only be used together with digit and decimal point patterns.',
            )
        self.exponent = True


@lru_cache(maxsize=256)
def parse_picture(text: str) -> Picture:
    """The picture of a format text."""
    picture = Picture()
    at = 0
    while at < len(text):
        keyword = next(
            (word for word in _KEYWORDS if text.startswith((word, word.lower()), at)), None
        )
        if keyword is not None:
            written = text[at : at + len(keyword)]
            picture.nodes.append((written if keyword in ("TH", "RN") else keyword, True))
            picture.take(keyword)
            at += len(keyword)
        elif text[at] == '"':
            at += 1
            while at < len(text) and text[at] != '"':
                at += text[at] == "\\" and at + 1 < len(text)
                picture.nodes.append((text[at], False))
                at += 1
            at += 1
        else:
            at += text[at] == "\\" and text[at + 1 : at + 2] == '"'
            picture.nodes.append((text[at], False))
            at += 1
    return picture


class _Writer:
    """One number written through a picture (NUMProc). `number` has no sign; `spaces` are blanks before it."""

    def __init__(self, picture: Picture, number: str, spaces: int, sign: str) -> None:
        self.picture = picture
        self.number = number
        self.spaces = spaces
        self.sign = sign
        self.position = 0
        """Offset of the next digit in `number` (number_p)."""
        self.slot = 0
        """Which digit position of the picture comes next (num_curr)."""
        self.in_number = False
        self.finished = False
        self.out: list[str] = []
        self.sign_after = picture.sign_after
        self.bracket = picture.bracket
        if picture.roman:
            self.spaces = 0
            self.sign = ""
            self.bracket = False
        if picture.plus or picture.minus:
            self.sign_written = picture.minus
        else:
            if self.sign != "-" and picture.fill:
                self.bracket = False
            self.sign_written = self.sign == "+" and picture.fill and not picture.sign
            if picture.sign_before and picture.pre == picture.pre_sign_digits:
                self.sign_after = True
        self.sign_before = picture.sign_before and not self.sign_after
        self.last = self._last_relevant()
        self.count = picture.post + picture.pre - 1
        if not self.sign_written and self.spaces == 0:
            self.count += 1

    def _last_relevant(self) -> int | None:
        """Offset of the last digit after the point that FM keeps."""
        point = self.number.find(".")
        if not (self.picture.fill and self.picture.decimal) or point < 0:
            return None
        last = max(len(self.number.rstrip("0")) - 1, point)
        if self.picture.zero_end > self.spaces:
            last = max(last, min(len(self.number) - 1, self.picture.zero_end - self.spaces))
        return last

    def _predecimal_zero(self) -> bool:
        """Whether the next digit is the lone zero before a point, which a 9 does not write."""
        return (
            not self.picture.zero
            and self.position == 0
            and self.number[:1] == "0"
            and self.picture.post != 0
        )

    def _last_is_point(self) -> bool:
        return self.last is not None and self.number[self.last] == "."

    def write(self) -> str:
        """The whole text."""
        for node, is_keyword in self.picture.nodes:
            if self.finished:
                break
            if is_keyword:
                self._keyword(node)
            else:
                self.out.append(node)
        return "".join(self.out)

    def _keyword(self, keyword: str) -> None:
        match keyword:
            case "9" | "0" | "." | "D":
                self._digit(keyword)
            case "," | "G":
                if self.in_number:
                    self.out.append(",")
                elif not self.picture.fill:
                    self.out.append(" ")
            case "L":
                self.out.append(" ")
            case "RN" | "rn":
                text = self.number if keyword == "RN" else self.number.lower()
                self.out.append(text if self.picture.fill else text.rjust(15))
            case "TH" | "th":
                if not (
                    self.picture.roman
                    or self.number[0] == "#"
                    or self.sign == "-"
                    or self.picture.decimal
                ):
                    ending = _ordinal(self.number)
                    self.out.append(ending if keyword == "TH" else ending.lower())
            case "MI" | "PL":
                sign = "-" if keyword == "MI" else "+"
                if self.sign == sign:
                    self.out.append(sign)
                elif not self.picture.fill:
                    self.out.append(" ")
            case "SG":
                self.out.append(self.sign)

    def _digit(self, keyword: str) -> None:
        picture = self.picture
        if picture.roman:
            return
        self.in_number = False
        zero_from_here = picture.zero and picture.zero_start == self.slot
        if (
            not self.sign_written
            and (self.slot >= self.spaces or zero_from_here)
            and (not self._predecimal_zero() or self._last_is_point())
        ):
            self._sign_before_digits()
        before_number = self.slot < self.spaces
        if before_number and (picture.zero_start > self.slot or not picture.zero):
            if not picture.fill:
                self.out.append(" ")
        elif before_number:
            self.out.append("0")
            self.in_number = True
        else:
            self._from_number(keyword)
        end = self.count + (self.spaces != 0) + picture.decimal
        if self.last is not None and self.last == self.position:
            end = self.slot
        if self.slot + 1 == end:
            self._sign_after_digits()
        self.slot += 1

    def _sign_before_digits(self) -> None:
        if self.picture.sign:
            if not self.sign_before:
                return
            self.out.append("-" if self.sign == "-" else "+")
        elif self.bracket:
            self.out.append(" " if self.sign == "+" else "<")
        elif self.sign == "+":
            if not self.picture.fill:
                self.out.append(" ")
        elif self.sign == "-":
            self.out.append("-")
        self.sign_written = True

    def _sign_after_digits(self) -> None:
        if self.sign_written and self.bracket:
            self.out.append(" " if self.sign == "+" else ">")
        elif self.picture.sign and self.sign_after:
            self.out.append("-" if self.sign == "-" else "+")

    def _from_number(self, keyword: str) -> None:
        """The next character of the number, or what stands for it."""
        char = self.number[self.position : self.position + 1]
        if char == ".":
            if not self._last_is_point() or self.picture.fill:
                self.out.append(".")
        elif self.last is not None and self.position > self.last and keyword != "0":
            pass
        elif self._predecimal_zero():
            if not self.picture.fill:
                self.out.append(" ")
            elif self._last_is_point():
                self.out.append("0")
        else:
            # Past the number's end PostgreSQL writes a zero byte, which ends the text there.
            self.finished = not char
            self.out.append(char)
            self.in_number = True
        if char:
            self.position += 1


def _ordinal(number: str) -> str:
    if not number[-1:].isdigit():
        raise QueryError(f'"{number}" is not a number', "22P02")
    if number[-2:-1] == "1":
        return "TH"
    return {"1": "ST", "2": "ND", "3": "RD"}.get(number[-1:], "TH")


def _roman(value: int) -> str:
    if not 1 <= value <= 3999:
        return "#" * 15
    out = []
    for size, letters in _ROMAN:
        count, value = divmod(value, size)
        out.append(letters * count)
    return "".join(out)


def _written(picture: Picture, digits: str) -> str:
    """`digits` (a plain decimal number) through the picture, # when it does not fit."""
    sign = "-" if digits[0] == "-" else "+"
    number = digits.removeprefix("-")
    length = len(number.partition(".")[0])
    spaces = max(picture.pre - length, 0)
    if length > picture.pre:
        number = "#" * picture.pre + "." + "#" * picture.post
    return _Writer(picture, number, spaces, sign).write()


def _blanked(picture: Picture) -> str:
    """What EEEE writes for a value without an exponent."""
    return " " + "#" * picture.pre + "." + "#" * (picture.post + 4)


def _scientific(value: Decimal, digits: int) -> str:
    if not value:
        return f" {0:.{digits}f}e+00"
    # A carry out of the mantissa is not moved to the exponent, as in numeric_out_sci.
    exponent = value.adjusted()
    mantissa = rescaled(value.scaleb(-exponent, context=EXACT), digits)
    text = f"{mantissa:f}e{exponent:+03d}"
    return text if text[0] == "-" else f" {text}"


@implements("numeric_to_char")
def numeric_to_char(value: Decimal, form: str) -> str:
    """to_char(numeric, text)."""
    if not form:
        return ""
    picture = parse_picture(form)
    if picture.roman:
        return _Writer(picture, _roman(numeric_int4(value)), 0, "").write()
    if picture.exponent:
        return _scientific(value, picture.post) if value.is_finite() else _blanked(picture)
    if picture.shifted:
        value = numeric_mul(value, Decimal(10) ** picture.multi)
        picture = replace(picture, pre=picture.pre + picture.multi)
    return _written(picture, f"{numeric_round(value, picture.post):f}")


@implements("int4_to_char")
def int4_to_char(value: int, form: str) -> str:
    """to_char(integer, text)."""
    if form and parse_picture(form).exponent:
        text = f"{value:+.{parse_picture(form).post}e}"
        return text.replace("+", " ", 1) if text[0] == "+" else text
    return numeric_to_char(Decimal(value), form)


@implements("int8_to_char")
def int8_to_char(value: int, form: str) -> str:
    """to_char(bigint, text)."""
    return numeric_to_char(Decimal(value), form)


def _float_to_char(value: float, form: str, digits: int) -> str:
    if not form:
        return ""
    picture = parse_picture(form)
    if picture.roman:
        number = _roman(round(value) if abs(value) < 4000 else 0)
        return _Writer(picture, number, 0, "").write()
    if picture.exponent:
        if not math.isfinite(value):
            return _blanked(picture)
        text = f"{value:+.{picture.post}e}"
        return text.replace("+", " ", 1) if text[0] == "+" else text
    if picture.shifted:
        value *= 10.0**picture.multi
        picture = replace(picture, pre=picture.pre + picture.multi)
    finite = math.isfinite(value)
    special = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    length = len(f"{abs(value):.0f}" if finite else special.removeprefix("-"))
    post = 0 if length >= digits else min(picture.post, digits - length)
    return _written(replace(picture, post=post), f"{value:.{post}f}" if finite else special)


implements("float8_to_char")(lambda value, form: _float_to_char(value, form, 15))
implements("float4_to_char")(lambda value, form: _float_to_char(value, form, 6))
