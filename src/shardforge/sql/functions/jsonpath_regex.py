"""LIKE_REGEX patterns of jsonpath as Python regular expressions.

Only the part of the pattern language that means the same in both is translated; anything else is refused, for a
wrong match would be silent. Whether a pattern matches does not depend on which match is found, so leftmost-first
matching is as good as POSIX's longest. Source: PostgreSQL 15, sections 9.7.3 and 9.16.2.4.
"""

from __future__ import annotations

import re
from functools import lru_cache

from shardforge.errors import QueryError, unsupported

_SAME_ESCAPES = frozenset("dwsDWSntrfv")
_GROUPS = ("(?:", "(?=", "(?!")


def _invalid(reason: str) -> QueryError:
    return QueryError(f"invalid regular expression: {reason}", "2201B")


@lru_cache(maxsize=256)
def compile_regex(pattern: str, flags: str) -> re.Pattern[str]:
    """The compiled pattern for flags among i, s, m and q."""
    options = re.ASCII
    if "i" in flags:
        options |= re.IGNORECASE
    if "q" in flags:
        return re.compile(re.escape(pattern), options)
    if "s" in flags:
        options |= re.DOTALL
    if "m" in flags:
        options |= re.MULTILINE
    translated = _Translator(pattern, flags).run()
    try:
        return re.compile(translated, options)
    except re.error:
        raise _invalid("quantifier operand invalid") from None


class _Translator:
    def __init__(self, pattern: str, flags: str) -> None:
        self.pattern = pattern
        self.multiline = "m" in flags
        self.newline_matches = "s" in flags
        self.at = 0

    def run(self) -> str:
        pattern = self.pattern
        if pattern.startswith(("***", "(?")) and not pattern.startswith(_GROUPS):
            raise unsupported("a regular expression with embedded options")
        out: list[str] = []
        depth = 0
        while self.at < len(pattern):
            char = pattern[self.at]
            if char == "\\":
                out.append(self.escape())
                continue
            if char == "[":
                out.append(self.bracket())
                continue
            if char == "(":
                depth += 1
                if pattern.startswith("(?", self.at):
                    out.append(self.group())
                    continue
            elif char == ")":
                depth -= 1
                if depth < 0:
                    break
            elif char == "$" and not self.multiline:
                char = r"\Z"
            elif char == "{" and not re.match(r"\{\d+(?:,\d*)?\}", pattern[self.at :]):
                raise unsupported("this use of a brace in a regular expression")
            out.append(char)
            self.at += 1
        if depth:
            raise _invalid("parentheses () not balanced")
        return "".join(out)

    def group(self) -> str:
        for opening in _GROUPS:
            if self.pattern.startswith(opening, self.at):
                self.at += len(opening)
                return opening
        raise unsupported("this kind of group in a regular expression")

    def escape(self) -> str:
        char = self.pattern[self.at + 1 : self.at + 2]
        self.at += 2
        if not char:
            raise _invalid("invalid escape \\ sequence")
        if char in _SAME_ESCAPES:
            return "\\" + char
        if not char.isalnum() and char.isascii():
            return re.escape(char)
        raise unsupported(f'the escape "\\{char}" in a regular expression')

    def bracket(self) -> str:
        pattern = self.pattern
        out = ["["]
        self.at += 1
        negated = pattern.startswith("^", self.at)
        if negated:
            out.append("^")
            self.at += 1
        first = True
        while True:
            char = pattern[self.at : self.at + 1]
            if not char:
                raise _invalid("brackets [] not balanced")
            if char == "]" and not first:
                break
            first = False
            if char == "\\":
                out.append(self.escape())
                continue
            if char == "[" and pattern[self.at + 1 : self.at + 2] in (":", ".", "="):
                raise unsupported("a named class in a regular expression")
            out.append(char if char == "-" or char.isalnum() else re.escape(char))
            self.at += 1
        self.at += 1
        if negated and not self.newline_matches:
            out.append(r"\n")
        out.append("]")
        return "".join(out)
