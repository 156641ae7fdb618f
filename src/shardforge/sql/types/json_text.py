"""The JSON grammar over text: a scanner that keeps where each value stands, and PostgreSQL's words for errors.

The `json` type keeps its text as typed, so its operators answer slices of it; `scan` gives the spans. It is also
the slow way that explains what the fast parser of `json` refused. Source: RFC 8259; PostgreSQL 15, section 8.14.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from shardforge.errors import QueryError


def invalid(detail: str) -> QueryError:
    """22P02 for text that is not JSON."""
    return QueryError("invalid input syntax for type json", "22P02", detail=detail)


def unsupported_escape() -> QueryError:
    """22P05: a null character has no place in text."""
    return QueryError(
        "unsupported Unicode escape sequence",
        "22P05",
        detail="\\u0000 cannot be converted to text.",
    )


@dataclass(slots=True, frozen=True)
class Node:
    """A value and where it stands: `kind` is object, array, string, number, boolean or null.

    `text` is a string's decoded value (with its lone surrogates, if the caller allowed them).
    """

    kind: str
    start: int
    end: int
    items: tuple[Node, ...] = ()
    fields: tuple[tuple[str, Node], ...] = ()
    text: str = ""


_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_SO_FAR = re.compile(
    r"-?(?:0|[1-9][0-9]*)?(?:(?<=[0-9])\.[0-9]*(?:(?<=[0-9])[eE][+-]?[0-9]*)?|(?<=[0-9])[eE][+-]?[0-9]*)?"
)
_WORD = re.compile(r"[A-Za-z0-9_\u0080-\U0010ffff]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_HEX4 = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES = {
    '"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
}  # fmt: skip
_SCALARS = {"true": "boolean", "false": "boolean", "null": "null"}


class _Scanner:
    """One pass. `strict` also refuses escapes that text cannot hold, as jsonb must."""

    def __init__(self, text: str, *, strict: bool) -> None:
        self.text = text
        self.strict = strict
        self.start = self.end = 0
        self.kind = ""
        self.value = ""
        self.advance()

    # Tokens -----------------------------------------------------------------------------------

    def advance(self) -> None:
        """Reads the next token into kind, value, start and end; kind "" is the end of the text."""
        text = self.text
        match = _SPACE.match(text, self.end)
        assert match is not None, "an empty run always matches"
        self.start = at = match.end()
        if at >= len(text):
            self.kind, self.end = "", at
            return
        char = text[at]
        if char in "{}[],:":
            self.kind, self.end = char, at + 1
        elif char == '"':
            self.kind = "string"
            self.value = self.string(at + 1)
        elif char in "-0123456789":
            self.number(at)
        else:
            self.word(at)

    def number(self, at: int) -> None:
        match = _NUMBER.match(self.text, at)
        sofar = _NUMBER_SO_FAR.match(self.text, at)
        assert sofar is not None, "an empty match is a match"
        end = max(match.end() if match else at, sofar.end())
        word = _WORD.match(self.text, end)
        assert word is not None, "an empty run always matches"
        if match is None or match.end() != word.end():
            raise invalid(f'Token "{self.text[at : max(word.end(), at + 1)]}" is invalid.')
        self.kind, self.end = "number", match.end()

    def word(self, at: int) -> None:
        match = _WORD.match(self.text, at)
        assert match is not None, "an empty run always matches"
        found = match[0] or self.text[at]
        kind = _SCALARS.get(found)
        if kind is None:
            raise invalid(f'Token "{found}" is invalid.')
        self.kind, self.end = kind, match.end()

    def string(self, at: int) -> str:
        text = self.text
        parts: list[str] = []
        high = ""
        while True:
            match = _PLAIN.match(text, at)
            assert match is not None, "an empty run always matches"
            if match[0]:
                self.check_pair(high)
                high = ""
                parts.append(match[0])
            at = match.end()
            char = text[at : at + 1]
            if not char or (char == "\\" and at + 1 >= len(text)):
                raise invalid(f'Token "{text[self.start :]}" is invalid.')
            if char == '"':
                self.check_pair(high)
                self.end = at + 1
                return "".join(parts)
            if char != "\\":
                raise invalid(f"Character with value 0x{ord(char):02x} must be escaped.")
            escape = text[at + 1]
            at += 2
            if escape == "u":
                high, decoded = self.unicode(at, high)
                at += 4
                parts.append(decoded)
                continue
            if escape not in _ESCAPES:
                raise invalid(f'Escape sequence "\\{escape}" is invalid.')
            self.check_pair(high)
            high = ""
            parts.append(_ESCAPES[escape])

    def unicode(self, at: int, high: str) -> tuple[str, str]:
        """A \\uXXXX escape: the high surrogate left waiting, and the text to add."""
        if not _HEX4.match(self.text, at):
            if len(self.text) < at + 4 and re.fullmatch(r"[0-9a-fA-F]*", self.text[at:]):
                raise invalid(f'Token "{self.text[self.start :]}" is invalid.')
            raise invalid('"\\u" must be followed by four hexadecimal digits.')
        char = chr(int(self.text[at : at + 4], 16))
        if not self.strict:
            return "", char
        if char == "\0":
            raise unsupported_escape()
        if "\ud800" <= char <= "\udbff":
            if high:
                raise invalid("Unicode high surrogate must not follow a high surrogate.")
            return char, ""
        if "\udc00" <= char <= "\udfff":
            if not high:
                raise invalid("Unicode low surrogate must follow a high surrogate.")
            return "", (high + char).encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        self.check_pair(high)
        return "", char

    def check_pair(self, high: str) -> None:
        if high:
            raise invalid("Unicode low surrogate must follow a high surrogate.")

    def unexpected(self, expected: str) -> QueryError:
        if not self.kind:
            return invalid("The input string ended unexpectedly.")
        found = self.text[self.start : self.end]
        return invalid(f'Expected {expected}, but found "{found}".')

    # Values -----------------------------------------------------------------------------------

    def node(self) -> Node:
        start = self.start
        if self.kind == "{":
            return self.object(start)
        if self.kind == "[":
            return self.array(start)
        if self.kind in ("", "}", "]", ",", ":"):
            raise self.unexpected("JSON value")
        found = Node(self.kind, start, self.end, text=self.value if self.kind == "string" else "")
        self.advance()
        return found

    def object(self, start: int) -> Node:
        fields: list[tuple[str, Node]] = []
        self.advance()
        expected = 'string or "}"'
        while self.kind != "}" or expected == "string":
            if self.kind != "string":
                raise self.unexpected(expected)
            name = self.value
            self.advance()
            if self.kind != ":":
                raise self.unexpected('":"')
            self.advance()
            fields.append((name, self.node()))
            if self.kind == "}":
                break
            if self.kind != ",":
                raise self.unexpected('"," or "}"')
            self.advance()
            expected = "string"
        end = self.end
        self.advance()
        return Node("object", start, end, fields=tuple(fields))

    def array(self, start: int) -> Node:
        items: list[Node] = []
        self.advance()
        if self.kind != "]":
            items.append(self.node())
            while self.kind == ",":
                self.advance()
                items.append(self.node())
            if self.kind != "]":
                raise self.unexpected('"," or "]"')
        end = self.end
        self.advance()
        return Node("array", start, end, items=tuple(items))


def too_deep() -> QueryError:
    """54001: nesting beyond what can be processed."""
    return QueryError(
        "stack depth limit exceeded",
        "54001",
        hint="The JSON value is nested too deeply.",
    )


def scan(text: str, *, strict: bool = False) -> Node:
    """The value in `text` with its spans; 22P02 with PostgreSQL's detail when it is not JSON."""
    try:
        scanner = _Scanner(text, strict=strict)
        root = scanner.node()
    except RecursionError:
        raise too_deep() from None
    if scanner.kind:
        raise scanner.unexpected("end of input")
    return root
