"""Runs sqllogictest files against a session: the records that PostgreSQL runs, with its conventions.

Source: the corpus's own description (SQLite, sqllogictest/about.wiki).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Run = Callable[[str], Awaitable[list[list[str | None]]]]
"""Runs a statement; its rows as text."""

ENGINE = "postgresql"


@dataclass
class Record:
    """One statement or query with what it should give."""

    line: int
    kind: str
    arguments: list[str]
    sql: str
    expected: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What a file gave."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)


def records(text: str) -> Iterator[Record]:
    """The records that are for us."""
    blocks: list[tuple[int, list[str]]] = []
    block: list[str] = []
    start = 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.startswith("#"):
            continue
        if not line.strip():
            if block:
                blocks.append((start, block))
            block = []
            continue
        if not block:
            start = number
        block.append(line.split("#")[0].rstrip() if line.startswith(("skipif", "onlyif")) else line)
    for number, lines in blocks:
        wanted = True
        while lines and lines[0].startswith(("skipif", "onlyif")):
            condition, engine = lines[0].split()[:2]
            wanted &= (engine == ENGINE) == (condition == "onlyif")
            lines = lines[1:]
        if not wanted or not lines:
            continue
        kind, *arguments = lines[0].split()
        if kind == "halt":
            return
        if kind not in ("statement", "query"):
            continue
        body = lines[1:]
        if "----" in body:
            cut = body.index("----")
            yield Record(number, kind, arguments, "\n".join(body[:cut]), body[cut + 1 :])
        else:
            yield Record(number, kind, arguments, "\n".join(body))


def shown(value: str | None, kind: str) -> str:
    """A value as the corpus writes it."""
    if value is None:
        return "NULL"
    if kind == "I":
        try:
            return str(int(float(value)))
        except ValueError:
            return "0"  # as C's atoi
    if kind == "R":
        return f"{float(value):.3f}"
    return "".join(c if " " <= c <= "~" else "@" for c in value) or "(empty)"


def problem(record: Record, rows: list[list[str | None]]) -> str | None:
    """How the rows differ from what the record expects."""
    types, *rest = record.arguments
    mode = rest[0] if rest else "nosort"
    if rows and len(rows[0]) != len(types):
        return f"{len(rows[0])} columns instead of {len(types)}"
    lines = [[shown(v, kind) for v, kind in zip(row, types, strict=True)] for row in rows]
    if mode == "rowsort":
        lines.sort()
    values = [value for line in lines for value in line]
    if mode == "valuesort":
        values.sort()
    if len(record.expected) == 1 and " values hashing to " in record.expected[0]:
        count, _, _, _, digest = record.expected[0].split()
        made = hashlib.md5("".join(value + "\n" for value in values).encode()).hexdigest()
        same = int(count) == len(values) and digest == made
        return None if same else f"{len(values)} values hashing to {made}, not {record.expected[0]}"
    return None if values == record.expected else f"{values[:8]} instead of {record.expected[:8]}"


async def run_file(path: Path, run: Run, error: type[Exception], stop_after: int = 20) -> Report:
    """Run every record of a file; gives up after `stop_after` failures."""
    report = Report()
    for record in records(path.read_text()):  # noqa: ASYNC240  # a test reads its own small file
        where = f"{path.name}:{record.line}"
        try:
            rows = await run(record.sql)
        except error as raised:
            found = None if record.arguments[:1] == ["error"] else f"{raised}"
        else:
            if record.kind == "query":
                found = problem(record, rows)
            else:
                found = "no error" if record.arguments[:1] == ["error"] else None
        if found is None:
            report.passed += 1
            continue
        report.failures.append(f"{where}: {found}\n{record.sql}")
        if len(report.failures) >= stop_after:
            break
    return report
