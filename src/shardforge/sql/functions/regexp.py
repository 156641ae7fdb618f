"""The regular expression operators (~, ~*, !~, !~*) and functions (regexp_match, regexp_replace, substring ...).

`regex` says what is matched; here is what is done with a match. Positions count characters from 1.
Source: PostgreSQL 15, src/backend/utils/adt/regexp.c and replace_text_regexp in varlena.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shardforge.errors import QueryError
from shardforge.sql.functions.pattern import similar_to_escape
from shardforge.sql.functions.regex import Regex, compile_regex
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.values import Array


@implements("textregexeq", "nameregexeq")
def textregexeq(text: str, pattern: str) -> bool:
    """text ~ pattern."""
    return compile_regex(pattern).test(text)


@implements("textregexne", "nameregexne")
def textregexne(text: str, pattern: str) -> bool:
    """text !~ pattern."""
    return not compile_regex(pattern).test(text)


@implements("texticregexeq", "nameicregexeq")
def texticregexeq(text: str, pattern: str) -> bool:
    """text ~* pattern."""
    return compile_regex(pattern, "i").test(text)


@implements("texticregexne", "nameicregexne")
def texticregexne(text: str, pattern: str) -> bool:
    """text !~* pattern."""
    return not compile_regex(pattern, "i").test(text)


def _without_global(flags: str, function: str) -> str:
    if "g" in flags:
        hint = "Use the regexp_matches function instead." if function == "regexp_match()" else ""
        raise QueryError(f'{function} does not support the "global" option', "22023", hint=hint)
    return flags


def _positive(value: int, name: str) -> None:
    if value <= 0:
        raise QueryError(f'invalid value for parameter "{name}": {value}', "22023")


# ---------------------------------------------------------------- matches


def _row(found: re.Match[str], groups: int) -> Array:
    """The submatches, or the whole match when the expression has none."""
    return Array(found.groups() if groups else (found[0],))


@implements("regexp_match")
def regexp_match(text: str, pattern: str, flags: str) -> Array | None:
    """The first match's submatches."""
    regex = compile_regex(pattern, _without_global(flags, "regexp_match()"))
    found = regex.search(text, captures=True)
    return None if found is None else _row(found, regex.groups)


implements("regexp_match_no_flags")(lambda text, pattern: regexp_match(text, pattern, ""))


@implements("regexp_matches")
def regexp_matches(text: str, pattern: str, flags: str) -> Iterator[Array]:
    """The submatches of the first match, or of all with g."""
    regex = compile_regex(pattern, flags.replace("g", ""))
    for found in regex.matches(text, captures=True):
        yield _row(found, regex.groups)
        if "g" not in flags:
            return


implements("regexp_matches_no_flags")(lambda text, pattern: regexp_matches(text, pattern, ""))


@implements("regexp_like")
def regexp_like(text: str, pattern: str, flags: str) -> bool:
    """Whether there is a match."""
    return compile_regex(pattern, _without_global(flags, "regexp_like()")).test(text)


implements("regexp_like_no_flags")(lambda text, pattern: regexp_like(text, pattern, ""))


@implements("regexp_count", "regexp_count_no_flags", "regexp_count_no_start")
def regexp_count(text: str, pattern: str, start: int = 1, flags: str = "") -> int:
    """How many matches there are."""
    _positive(start, "start")
    regex = compile_regex(pattern, _without_global(flags, "regexp_count()"))
    return sum(1 for _ in regex.matches(text, start - 1))


def _nth_span(regex: Regex, text: str, start: int, n: int, group: int) -> tuple[int, int] | None:
    if group > regex.groups:
        return None
    for count, found in enumerate(regex.matches(text, start - 1, captures=group > 0), 1):
        if count == n:
            span = found.span(group)
            return None if span[0] < 0 else span
    return None


@implements(
    "regexp_instr", "regexp_instr_no_subexpr", "regexp_instr_no_flags", "regexp_instr_no_endoption",
    "regexp_instr_no_n", "regexp_instr_no_start",
)  # fmt: skip
def regexp_instr(
    text: str,
    pattern: str,
    start: int = 1,
    n: int = 1,
    endoption: int = 0,
    flags: str = "",
    group: int = 0,
) -> int:
    """Where the n-th match (or its submatch) begins, or just after its end; 0 for none."""
    _positive(start, "start")
    _positive(n, "n")
    if endoption not in (0, 1):
        raise QueryError(f'invalid value for parameter "endoption": {endoption}', "22023")
    if group < 0:
        raise QueryError(f'invalid value for parameter "subexpr": {group}', "22023")
    regex = compile_regex(pattern, _without_global(flags, "regexp_instr()"))
    span = _nth_span(regex, text, start, n, group)
    return 0 if span is None else span[endoption] + 1


@implements(
    "regexp_substr", "regexp_substr_no_subexpr", "regexp_substr_no_flags", "regexp_substr_no_n",
    "regexp_substr_no_start",
)  # fmt: skip
def regexp_substr(
    text: str, pattern: str, start: int = 1, n: int = 1, flags: str = "", group: int = 0
) -> str | None:
    """The n-th match, or its submatch."""
    _positive(start, "start")
    _positive(n, "n")
    if group < 0:
        raise QueryError(f'invalid value for parameter "subexpr": {group}', "22023")
    regex = compile_regex(pattern, _without_global(flags, "regexp_substr()"))
    span = _nth_span(regex, text, start, n, group)
    return None if span is None else text[span[0] : span[1]]


@implements("textregexsubstr")
def textregexsubstr(text: str, pattern: str) -> str | None:
    """substring(text from pattern): the first submatch, or the whole match when there is none."""
    regex = compile_regex(pattern)
    found = regex.search(text, captures=True)
    if found is None:
        return None
    part: str | None = found[1 if regex.groups else 0]
    return part


implements("substring(text,text,text)")(
    lambda text, pattern, escape: textregexsubstr(text, similar_to_escape(pattern, escape))
)

# ---------------------------------------------------------------- replacing


_REFERENCE = re.compile(r"\\(?:([1-9])|(&)|(\\))")


def _expanded(replacement: str, found: re.Match[str], groups: int) -> str:
    def expand(reference: re.Match[str]) -> str:
        if reference[1]:
            number = int(reference[1])
            return (found[number] or "") if number <= groups else ""
        return found[0] if reference[2] else "\\"

    return _REFERENCE.sub(expand, replacement)


def _replaced(text: str, regex: Regex, replacement: str, start: int, n: int) -> str:
    """With the n-th match replaced, or every one when n is 0."""
    plain = "\\" not in replacement
    captures = not plain and re.search(r"\\[1-9]", replacement) is not None
    out: list[str] = []
    done = 0
    for count, found in enumerate(regex.matches(text, start, captures=captures), 1):
        if n and count < n:
            continue
        out.append(text[done : found.start()])
        out.append(replacement if plain else _expanded(replacement, found, regex.groups))
        done = found.end()
        if n:
            break
    out.append(text[done:])
    return "".join(out)


@implements("textregexreplace", "textregexreplace_noopt")
def textregexreplace(text: str, pattern: str, replacement: str, flags: str = "") -> str:
    """regexp_replace: the first match, or all with g."""
    if flags[:1].isdigit():
        raise QueryError(
            f'invalid regular expression option: "{flags[0]}"',
            "22023",
            hint="If you meant to use regexp_replace() with a start parameter, cast the fourth argument to "
            "integer explicitly.",
        )
    regex = compile_regex(pattern, flags.replace("g", ""))
    return _replaced(text, regex, replacement, 0, 0 if "g" in flags else 1)


@implements(
    "textregexreplace_extended",
    "textregexreplace_extended_no_flags",
    "textregexreplace_extended_no_n",
)
def textregexreplace_extended(
    text: str, pattern: str, replacement: str, start: int = 1, n: int | None = None, flags: str = ""
) -> str:
    """regexp_replace from a start: the n-th match, all with 0; without n the flags decide."""
    _positive(start, "start")
    if n is not None and n < 0:
        raise QueryError(f'invalid value for parameter "n": {n}', "22023")
    regex = compile_regex(pattern, flags.replace("g", ""))
    wanted = (0 if "g" in flags else 1) if n is None else n
    return _replaced(text, regex, replacement, start - 1, wanted)


# ---------------------------------------------------------------- splitting


@implements("regexp_split_to_table", "regexp_split_to_table_no_flags")
def regexp_split_to_table(text: str, pattern: str, flags: str = "") -> Iterator[str]:
    """What lies between the matches; empty matches at the ends or just after a match do not count."""
    regex = compile_regex(pattern, _without_global(flags, "regexp_split_to_table()"))
    return iter(_split(regex, text))


@implements("regexp_split_to_array", "regexp_split_to_array_no_flags")
def regexp_split_to_array(text: str, pattern: str, flags: str = "") -> Array:
    """What lies between the matches, as an array."""
    regex = compile_regex(pattern, _without_global(flags, "regexp_split_to_array()"))
    return Array(tuple(_split(regex, text)))


def _split(regex: Regex, text: str) -> list[str]:
    parts: list[str] = []
    done = 0
    for found in regex.matches(text):
        begin, end = found.span()
        # Degenerate matches at the ends of the text, or where the last match ended, split nothing.
        if begin == end and (begin >= len(text) or end <= done):
            continue
        parts.append(text[done:begin])
        done = end
    parts.append(text[done:])
    return parts
