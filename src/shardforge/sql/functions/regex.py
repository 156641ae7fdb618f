"""PostgreSQL's advanced regular expressions (ARE), parsed and written again for Python's `re`.

Whether a text matches is the same question for both. Where a match ends is not: PostgreSQL takes the longest (or,
when the first quantifier is non-greedy, the shortest) match of the whole expression, Python the first that
backtracking finds. So a `Regex` finds the leftmost start with `re` and then tries ends in PostgreSQL's order, unless
the expression is such that both must agree. Submatches agree where branches cannot compete; an expression whose
submatches could differ is refused (0A000) when they are asked for, and so is syntax with no counterpart.
Character classes, \\w and case folding are ASCII's (the C locale). Source: PostgreSQL 15, chapter 9.7.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from shardforge.errors import QueryError, unsupported

REPEAT_MAX = 255
_CLASSES = {
    "alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "upper": "A-Z", "lower": "a-z", "space": r" \t\n\v\f\r",
    "blank": r" \t", "punct": r"!-/:-@\[-`{-~", "print": " -~", "graph": "!-~", "cntrl": r"\x00-\x1f\x7f",
    "xdigit": "0-9a-fA-F", "word": "a-zA-Z0-9_", "ascii": r"\x00-\x7f",
}  # fmt: skip
_SHORTHANDS = {"d": "digit", "s": "space", "w": "word"}
_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "B": "\\",
    "e": "\x1b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
_CONSTRAINTS = {
    "A": r"\A", "Z": r"\Z", "m": r"(?<!\w)(?=\w)", "M": r"(?<=\w)(?!\w)", "y": r"(?:(?<!\w)(?=\w)|(?<=\w)(?!\w))",
    "Y": r"(?:(?<=\w)(?=\w)|(?<!\w)(?!\w))",
}  # fmt: skip


def invalid(why: str) -> QueryError:
    """2201B, in PostgreSQL's words."""
    return QueryError(f"invalid regular expression: {why}", "2201B")


@dataclass(slots=True)
class _Node:
    """Part of an expression: its Python form and what matching it can be like."""

    text: str
    shortest: int
    longest: int | None
    """Lengths that it can match; None is unbounded."""
    greedy: bool | None = None
    """Its preference: longest (True), shortest (False), or none of its own."""
    literal: str | None = None
    capturing: bool = False
    mixed: bool = False
    """Holds preferences that differ inside a group: submatches could differ from PostgreSQL's."""
    competing: bool = False
    """Holds branches of which more than one could match at a position."""
    constraint: bool = False
    """Looks at what surrounds the match's end, so that the text must not be cut there."""
    ends_text: bool = False
    """Can match only up to the end of the text."""
    first: str | None = None
    """The only character that it can begin with, if there is one."""

    @property
    def fixed(self) -> bool:
        return self.shortest == self.longest


@dataclass(slots=True)
class _Flags:
    """Options, as the flags argument or (?...) at the start give them."""

    ignore_case: bool = False
    dot_newline: bool = True
    line_anchors: bool = False
    quote: bool = False

    def apply(self, letters: str) -> None:
        """Take option letters; 22023 for one that is none, 0A000 for one without a counterpart."""
        for letter in letters:
            match letter:
                case "i":
                    self.ignore_case = True
                case "c":
                    self.ignore_case = False
                case "s":
                    self.dot_newline, self.line_anchors = True, False
                case "n" | "m":
                    self.dot_newline, self.line_anchors = False, True
                case "p":
                    self.dot_newline, self.line_anchors = False, False
                case "w":
                    self.dot_newline, self.line_anchors = True, True
                case "q":
                    self.quote = True
                case "t":
                    pass
                case "b" | "e" | "x":
                    raise unsupported(f'regular expression option "{letter}"')
                case _:
                    raise QueryError(f'invalid regular expression option: "{letter}"', "22023")


class _Parser:
    """Recursive descent over one expression."""

    def __init__(self, source: str, flags: _Flags) -> None:
        self.source = source
        self.at = 0
        self.flags = flags
        self.groups = 0
        self.closed: set[int] = set()
        self.in_lookaround = 0

    def peek(self, text: str) -> bool:
        return self.source.startswith(text, self.at)

    def expression(self, *, nested: bool) -> _Node:
        branches = [self.branch(nested=nested)]
        while self.peek("|"):
            self.at += 1
            branches.append(self.branch(nested=nested))
        return branches[0] if len(branches) == 1 else _alternatives(branches)

    def branch(self, *, nested: bool) -> _Node:
        parts: list[_Node] = []
        while self.at < len(self.source):
            if self.peek("|") or (nested and self.peek(")")):
                break
            parts.append(self.quantified())
        return _sequence(parts)

    # ---------------------------------------------------------------- quantifiers

    def quantified(self) -> _Node:
        start = self.at
        atom = self.atom()
        bounds = self.quantifier()
        if bounds is None:
            return atom
        if atom.constraint and atom.longest == 0 and start >= 0:
            raise invalid("quantifier operand invalid")
        low, high, text, greedy = bounds
        if self.quantifier() is not None:
            raise invalid("quantifier operand invalid")
        longest = None if high is None or atom.longest is None else high * atom.longest
        if atom.longest == 0:
            longest = 0
        fixed_count = low == high
        return _Node(
            _grouped(atom) + text,
            low * atom.shortest,
            longest,
            greedy=atom.greedy
            if fixed_count and atom.greedy is not None
            else None
            if fixed_count
            else greedy,
            capturing=atom.capturing,
            mixed=atom.mixed
            or (atom.greedy is not None and atom.greedy != greedy and not fixed_count)
            or (atom.capturing and atom.shortest == 0),
            competing=atom.competing,
            constraint=atom.constraint,
            first=atom.first if low else None,
        )

    def quantifier(self) -> tuple[int, int | None, str, bool] | None:
        match = re.compile(r"(?:([*+?])|\{([0-9]+)(?:(,)([0-9]*))?\})(\?)?").match(
            self.source, self.at
        )
        if match is None:
            if re.compile(r"\{[0-9]").match(self.source, self.at):
                raise invalid(
                    "braces {} not balanced"
                    if "}" not in self.source[self.at :]
                    else "invalid repetition count(s)"
                )
            return None
        self.at = match.end()
        low: int
        high: int | None
        if match[1]:
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[match[1]]
            text = match[1]
        else:
            low = int(match[2])
            high = (int(match[4]) if match[4] else None) if match[3] else low
            if low > REPEAT_MAX or (high is not None and (high > REPEAT_MAX or high < low)):
                raise invalid("invalid repetition count(s)")
            text = f"{{{low},{'' if high is None else high}}}" if match[3] else f"{{{low}}}"
        lazy = bool(match[5])
        return low, high, text + ("?" if lazy and low != high else ""), not lazy

    # ---------------------------------------------------------------- atoms

    def atom(self) -> _Node:
        char = self.source[self.at]
        if char in "*+?":
            raise invalid("quantifier operand invalid")
        if char == "{" and self.source[self.at + 1 : self.at + 2].isdigit():
            raise invalid("quantifier operand invalid")
        self.at += 1
        match char:
            case "(":
                return self.group()
            case ")":
                raise invalid("parentheses () not balanced")
            case "[":
                return self.bracket()
            case ".":
                return _Node("." if self.flags.dot_newline else r"[^\n]", 1, 1)
            case "^":
                return _Node("(?m:^)" if self.flags.line_anchors else r"\A", 0, 0, constraint=True)
            case "$":
                if self.flags.line_anchors:
                    return _Node("(?m:$)", 0, 0, constraint=True)
                return _Node(r"\Z", 0, 0, constraint=True, ends_text=True)
            case "\\":
                return self.escape()
        return _character(char)

    def group(self) -> _Node:
        for opening in ("?:", "?=", "?!", "?<=", "?<!"):
            if self.peek(opening):
                self.at += len(opening)
                return self.plain_group() if opening == "?:" else self.lookaround(opening)
        if self.peek("?"):
            raise invalid("quantifier operand invalid")
        number = 0
        if not self.in_lookaround:
            self.groups += 1
            number = self.groups
        inner = self.expression(nested=True)
        self.close()
        if not number:
            return self.wrapped(inner, f"(?:{inner.text})")
        self.closed.add(number)
        node = self.wrapped(inner, f"({inner.text})")
        node.capturing = True
        return node

    def wrapped(self, inner: _Node, text: str) -> _Node:
        return _Node(
            text, inner.shortest, inner.longest, greedy=inner.greedy, capturing=inner.capturing,
            mixed=inner.mixed, competing=inner.competing, constraint=inner.constraint, ends_text=inner.ends_text,
            first=inner.first,
        )  # fmt: skip

    def plain_group(self) -> _Node:
        inner = self.expression(nested=True)
        self.close()
        return self.wrapped(inner, f"(?:{inner.text})")

    def lookaround(self, opening: str) -> _Node:
        self.in_lookaround += 1
        inner = self.expression(nested=True)
        self.in_lookaround -= 1
        self.close()
        if "<" in opening and not inner.fixed:
            raise unsupported("a lookbehind of variable length in a regular expression")
        return _Node(f"({opening}{inner.text})", 0, 0, constraint=True)

    def close(self) -> None:
        if not self.peek(")"):
            raise invalid("parentheses () not balanced")
        self.at += 1

    def escape(self) -> _Node:
        char = self.source[self.at : self.at + 1]
        if not char:
            raise invalid("invalid escape \\ sequence")
        if char.lower() in _SHORTHANDS:
            self.at += 1
            negated = "^" if char.isupper() else ""
            body = _CLASSES[_SHORTHANDS[char.lower()]]
            return _Node(f"[{negated}{body}]", 1, 1)
        if char in _CONSTRAINTS:
            self.at += 1
            return _Node(_CONSTRAINTS[char], 0, 0, constraint=True, ends_text=char == "Z")
        reference = re.compile("[1-9][0-9]*").match(self.source, self.at)
        if reference and (int(reference[0]) < 10 or int(reference[0]) <= self.groups):
            number = int(reference[0])
            if number not in self.closed or self.in_lookaround:
                raise invalid("invalid backreference number")
            self.at = reference.end()
            return _Node(f"(?:\\{number})", 0, None, mixed=True)
        return _character(self.character_escape())

    def character_escape(self) -> str:
        """The character that an escape stands for; `at` is after the backslash."""
        match = re.compile(
            r"u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]+)|c(.)|(0[0-7]{0,2}|[0-7]{2,3})|(.)",
            re.DOTALL,
        ).match(self.source, self.at)
        if match is None:
            raise invalid("invalid escape \\ sequence")
        self.at = match.end()
        digits = match[1] or match[2] or match[3]
        if digits:
            if int(digits, 16) > 0x10FFFF:
                raise invalid("invalid escape \\ sequence")
            return chr(int(digits, 16))
        if match[4]:
            return chr(ord(match[4]) & 0x1F)
        if match[5]:
            return chr(int(match[5], 8))
        char = match[6]
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char.isascii() and char.isalnum():
            raise invalid("invalid escape \\ sequence")
        return char

    # ---------------------------------------------------------------- brackets

    def bracket(self) -> _Node:
        for word, constraint in (("[:<:]]", "m"), ("[:>:]]", "M")):
            if self.peek(word):
                self.at += len(word)
                return _Node(_CONSTRAINTS[constraint], 0, 0, constraint=True)
        negated = self.peek("^")
        self.at += negated
        items: list[str] = []
        first = True
        while first or not self.peek("]"):
            if self.at >= len(self.source):
                raise invalid("brackets [] not balanced")
            items.append(self.bracket_item())
            first = False
        self.at += 1
        if negated and not self.flags.dot_newline:
            items.append(r"\n")
        return _Node(f"[{'^' if negated else ''}{''.join(items)}]", 1, 1)

    def bracket_item(self) -> str:
        if self.peek("[:"):
            end = self.source.find(":]", self.at)
            name = self.source[self.at + 2 : end] if end != -1 else ""
            if end == -1:
                raise invalid("brackets [] not balanced")
            if name not in _CLASSES:
                raise invalid("invalid character class")
            self.at = end + 2
            if self.flags.ignore_case and name in ("upper", "lower"):
                name = "alpha"
            return _CLASSES[name]
        if self.peek("\\") and self.source[self.at + 1 : self.at + 2].lower() in _SHORTHANDS:
            letter = self.source[self.at + 1]
            if letter.isupper():
                self.at += 2
                return "\\" + letter
            self.at += 2
            return _CLASSES[_SHORTHANDS[letter]]
        low = self.bracket_character()
        if self.peek("-") and not self.peek("-]"):
            self.at += 1
            high = self.bracket_character()
            if high < low:
                raise invalid("invalid character range")
            return f"{_in_class(low)}-{_in_class(high)}"
        return _in_class(low)

    def bracket_character(self) -> str:
        if self.at >= len(self.source):
            raise invalid("brackets [] not balanced")
        for opening, closing in (("[.", ".]"), ("[=", "=]")):
            if self.peek(opening):
                end = self.source.find(closing, self.at + 2)
                if end - self.at != 3:
                    raise unsupported("a collating element in a regular expression")
                self.at = end + 2
                return self.source[end - 1]
        char = self.source[self.at]
        self.at += 1
        return self.character_escape() if char == "\\" else char


def _in_class(char: str) -> str:
    return f"\\{char}" if char in r"\]^-[&~|" else char


def _character(char: str) -> _Node:
    return _Node(re.escape(char), 1, 1, literal=char, first=char.lower())


def _grouped(node: _Node) -> str:
    """The node's text as something that a quantifier can follow."""
    single = node.literal is not None and len(node.literal) == 1
    if single or re.fullmatch(r"\.|\[(?:[^\]\\]|\\.)*\]|\([^()]*\)", node.text):
        return node.text
    return (
        node.text
        if node.text.startswith("(") and node.capturing and _one_group(node.text)
        else f"(?:{node.text})"
    )


def _one_group(text: str) -> bool:
    """Whether the opening parenthesis closes at the end."""
    depth = 0
    at = 0
    in_class = False
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
            at += text[at + 1 : at + 2] == "^"
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                return at == len(text) - 1
        at += 1
    return False


def _sequence(parts: list[_Node]) -> _Node:
    if len(parts) == 1:
        return parts[0]
    longest: int | None = 0
    for part in parts:
        longest = None if longest is None or part.longest is None else longest + part.longest
    literals = [part.literal for part in parts]
    return _Node(
        "".join(part.text for part in parts),
        sum(part.shortest for part in parts),
        longest,
        greedy=next((part.greedy for part in parts if part.greedy is not None), None),
        literal=None if None in literals else "".join(filter(None, literals)),
        capturing=any(part.capturing for part in parts),
        mixed=any(part.mixed for part in parts),
        competing=any(part.competing for part in parts),
        constraint=any(part.constraint for part in parts),
        ends_text=bool(parts) and parts[-1].ends_text,
        first=parts[0].first if parts else None,
    )


def _alternatives(branches: list[_Node]) -> _Node:
    literal = all(branch.literal is not None for branch in branches)
    if literal:
        # Longest first is PostgreSQL's preference, and for literals it can be had by order.
        branches = sorted(branches, key=lambda branch: -branch.shortest)
    longest: int | None = 0
    for branch in branches:
        longest = (
            None if longest is None or branch.longest is None else max(longest, branch.longest)
        )
    fixed = (
        len({(branch.shortest, branch.longest) for branch in branches}) == 1 and branches[0].fixed
    )
    inner_captures = any(branch.capturing for branch in branches)
    beginnings = {branch.first for branch in branches}
    exclusive = None not in beginnings and len(beginnings) == len(branches)
    return _Node(
        "|".join(branch.text for branch in branches),
        min(branch.shortest for branch in branches),
        longest,
        greedy=None if fixed else True,
        capturing=inner_captures,
        mixed=any(branch.mixed or branch.greedy is False for branch in branches),
        competing=not (exclusive or literal or (fixed and not inner_captures))
        or any(branch.competing for branch in branches),
        constraint=any(branch.constraint for branch in branches),
        ends_text=all(branch.ends_text for branch in branches),
    )


@dataclass(slots=True)
class Regex:
    """A compiled expression."""

    source: str
    compiled: re.Pattern[str]
    groups: int
    direct: bool
    """Python's match is PostgreSQL's in extent."""
    greedy: bool
    constraint: bool
    submatches_agree: bool
    flags: int
    _by_rest: dict[int, re.Pattern[str]] = field(default_factory=dict)

    def test(self, text: str) -> bool:
        """Whether the text holds a match."""
        return self.compiled.search(text) is not None

    def search(self, text: str, start: int = 0, *, captures: bool = False) -> re.Match[str] | None:
        """The match that PostgreSQL finds from `start` on, which context before `start` still constrains.

        Raises: 0A000 when `captures` are wanted and cannot be trusted.
        """
        if captures and self.groups and not self.submatches_agree:
            raise unsupported(f'submatches of the regular expression "{self.source}"')
        found = self.compiled.search(text, start)
        if found is None or self.direct:
            return found
        begin = found.start()
        ends = range(len(text), found.end(), -1) if self.greedy else range(begin, found.end())
        for end in ends:
            candidate = self._exactly(text, begin, end)
            if candidate is not None:
                return candidate
        return found

    def _exactly(self, text: str, begin: int, end: int) -> re.Match[str] | None:
        if not self.constraint:
            return self.compiled.fullmatch(text, begin, end)
        rest = len(text) - end
        pattern = self._by_rest.get(rest)
        if pattern is None:
            if len(self._by_rest) > 4096:
                self._by_rest.clear()
            pattern = re.compile(
                f"(?:{self.compiled.pattern})(?=[\\s\\S]{{{rest}}}\\Z)", self.compiled.flags
            )
            self._by_rest[rest] = pattern
        return pattern.match(text, begin)

    def matches(
        self, text: str, start: int = 0, *, captures: bool = False
    ) -> Iterator[re.Match[str]]:
        """Every match from `start` on; after an empty one the search goes on a character later."""
        at = start
        while at <= len(text):
            found = self.search(text, at, captures=captures)
            if found is None:
                return
            begin, end = found.span()
            yield found
            at = end if end > begin else end + 1


@lru_cache(maxsize=512)
def compile_regex(source: str, options: str = "") -> Regex:
    """The expression under options (i, n, s ...; not g); cached."""
    flags = _Flags()
    flags.apply(options)
    body = source
    if body.startswith("***="):
        body, flags.quote = body[4:], True
    elif body.startswith("***:"):
        body = body[4:]
    elif body.startswith("***"):
        raise invalid("quantifier operand invalid")
    embedded = re.match(r"\(\?([a-z]+)\)", body)
    if embedded and not flags.quote:
        try:
            flags.apply(embedded[1])
        except QueryError as error:
            if error.sqlstate == "22023":
                raise invalid("invalid embedded option") from None
            raise
        body = body[embedded.end() :]
    if flags.quote:
        root, groups = _Node(re.escape(body), len(body), len(body)), 0
    else:
        parser = _Parser(body, flags)
        root = parser.expression(nested=False)
        groups = parser.groups
    python_flags = re.DOTALL | re.ASCII | (re.IGNORECASE if flags.ignore_case else 0)
    try:
        compiled = re.compile(root.text, python_flags)
    except (re.error, OverflowError) as error:
        raise unsupported(f'the regular expression "{source}" ({error})') from None
    return Regex(
        source,
        compiled,
        groups,
        direct=root.fixed or (root.ends_text and root.greedy is not None),
        greedy=root.greedy is not False,
        constraint=root.constraint,
        submatches_agree=not (root.mixed or root.competing),
        flags=python_flags,
    )
