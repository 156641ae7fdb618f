"""Scripts of several sessions with PostgreSQL 15's answers: rows, warnings, errors, waits and notifications.

A line is one statement of a session. `waits`: it was not answered before the next line; its answer is then part of a
later line, under `answered`. `ends`: it waits, and its own timeout ends that. `told`: the notifications that sessions
got after the line, as sender, channel, payload. `prepare`: sent by the extended protocol.
`python -m tests.golden.sessions.test_sessions DSN` asks PostgreSQL again.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from tests.inprocess import running_node

FILES = sorted(Path(__file__).parent.glob("*.jsonl"))
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"

Line = dict[str, Any]


class Cast:
    """The sessions of a script, made when they are named first."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.sessions: dict[str, psycopg.AsyncConnection[Any]] = {}
        self.waiting: dict[str, asyncio.Task[Line]] = {}
        self._names: dict[int, str] = {}
        self._told: dict[str, list[list[str]]] = {}
        self._warnings: dict[str, list[str]] = {}

    async def _session(self, name: str) -> psycopg.AsyncConnection[Any]:
        if name not in self.sessions:
            session = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
            self.sessions[name] = session
            self._names[session.info.backend_pid] = name
            session.add_notify_handler(
                lambda notify: self._told.setdefault(name, []).append(
                    [self._names[notify.pid], notify.channel, notify.payload]
                )
            )
            session.add_notice_handler(
                lambda notice: self._warnings.setdefault(name, []).append(
                    f"{notice.severity}: {notice.message_primary}"
                )
            )
        return self.sessions[name]

    async def _answer(self, name: str, line: Line) -> Line:
        session = await self._session(name)
        answer: Line
        try:
            cursor = await session.execute(line["sql"], prepare=line.get("prepare", False))
            rows = await cursor.fetchall() if cursor.description else []
            answer = {"rows": [list(row) for row in rows]}
        except psycopg.Error as error:
            answer = {"error": [error.sqlstate, error.diag.message_primary]}
        warnings = self._warnings.pop(name, None)
        return answer | ({"warnings": warnings} if warnings else {})

    async def _is_answered(self, name: str, task: asyncio.Task[Line]) -> bool:
        """Whether it is, once it is that or waits for a lock."""
        judge, pid = await self._session("judge"), self.sessions[name].info.backend_pid
        while not task.done():
            (waiting,) = await (await judge.execute(WAITING, (pid,))).fetchone() or (0,)
            if waiting:
                return False
            await asyncio.sleep(0)
        return True

    async def play(self, line: Line) -> Line:
        """What becomes of a line, as the file says it."""
        name = line["on"]
        await self._session(name)
        task = asyncio.create_task(self._answer(name, line))
        result = {key: line[key] for key in ("on", "sql", "prepare", "ends") if key in line}
        if line.get("ends") or await self._is_answered(name, task):
            result |= await task
        else:
            result["waits"] = True
            self.waiting[name] = task
        answered = {}
        for other, waiting in sorted(self.waiting.items()):
            if other != name and await self._is_answered(other, waiting):
                answered[other] = waiting.result()
                del self.waiting[other]
        told = await self._hear()
        return (
            result | ({"answered": answered} if answered else {}) | ({"told": told} if told else {})
        )

    async def _hear(self) -> dict[str, list[list[str]]]:
        for name, session in self.sessions.items():
            idle = session.info.transaction_status is TransactionStatus.IDLE
            if idle and name not in self.waiting:
                await session.execute("")
        told, self._told = self._told, {}
        return dict(sorted(told.items()))

    async def close(self) -> None:
        """The script is over."""
        assert not self.waiting, "a script answers everybody"
        for session in self.sessions.values():
            await session.close()


async def played(dsn: str, lines: list[Line]) -> list[Line]:
    """A script's lines with what became of them."""
    cast = Cast(dsn)
    found = [await cast.play(line) for line in lines]
    await cast.close()
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_sessions_get_what_postgresql_s_get(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    async def main() -> list[Line]:
        async with running_node() as node:
            host, port = node.address
            dsn = f"host={host} port={port} user=shardforge dbname=shardforge"
            return await asyncio.wait_for(played(dsn, lines), 60)

    found = asyncio.run(main())
    wrong = [
        f"expected {was}\n  got {now}" for was, now in zip(lines, found, strict=True) if was != now
    ]
    assert not wrong, "\n".join(wrong)


if __name__ == "__main__":
    for file in FILES:
        script = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        answers = asyncio.run(played(sys.argv[1], script))
        file.write_text("".join(json.dumps(answer) + "\n" for answer in answers), encoding="utf-8")
