"""`shardforge sql`: a SQL prompt with history, completion and highlighting, and the describe commands of psql.

It speaks to any PostgreSQL server through psycopg; what it shows of the catalog it asks in SQL.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import PostgresLexer
from rich.console import Console
from rich.table import Table

from shardforge.cli.describe import COMMANDS, describe

DEFAULT_DSN = "host=127.0.0.1 port=5432 user=shardforge dbname=shardforge"
KEYWORDS = (
    "ALTER BEGIN BY COMMIT CREATE DELETE DISTINCT DROP EXPLAIN FROM GROUP HAVING IN INDEX INSERT INTO JOIN LEFT LIMIT "
    "NOT NULL ON OR ORDER PRIMARY REFERENCES RETURNING ROLLBACK SELECT SET SHOW TABLE TRUNCATE UNION UNIQUE UPDATE "
    "VALUES VIEW WHERE WITH"
)
HELP = """\\d [name]  describe a relation, or list them      \\dt \\di \\dv \\ds  tables, indexes, views, sequences
\\l  databases   \\dn  schemas   \\du  roles           \\timing  show how long statements take
\\q  leave       \\?  this help   statements end with ;"""

Connection = psycopg.Connection[tuple[object, ...]]


class Shell:
    """One connection and what it prints to."""

    def __init__(self, connection: Connection, console: Console) -> None:
        self._connection = connection
        self._console = console
        self._timing = False

    def run(self, text: str) -> bool:
        """Run statements or a backslash command and print the outcome; False when it failed."""
        try:
            if text.startswith("\\"):
                return self._command(text)
            with self._connection.cursor() as cursor:
                cursor.execute(text.encode())
                while True:
                    self._print(cursor)
                    if not cursor.nextset():
                        return True
        except psycopg.Error as error:
            self._print_error(error)
            return False

    def _command(self, text: str) -> bool:
        name, _, argument = text.rstrip(";").partition(" ")
        if name == "\\timing":
            self._timing = not self._timing
        elif name == "\\?":
            self._console.print(HELP, highlight=False, markup=False)
        elif name in COMMANDS:
            for title, columns, rows in describe(self._connection, name, argument.strip()):
                self._table(columns, rows, title)
        else:
            self._console.print(f"unknown command {name}; \\? for help", style="red", markup=False)
            return False
        return True

    def _print(self, cursor: psycopg.Cursor[tuple[object, ...]]) -> None:
        if cursor.description is not None:
            rows = [["" if v is None else str(v) for v in row] for row in cursor.fetchall()]
            self._table([column.name for column in cursor.description], rows, "")
            self._console.print(
                f"({len(rows)} row{'' if len(rows) == 1 else 's'})", highlight=False
            )
        elif cursor.statusmessage:
            self._console.print(cursor.statusmessage, highlight=False, markup=False)

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
        table = Table(*columns, title=title or None, title_justify="left")
        for row in rows:
            table.add_row(*row)
        self._console.print(table, markup=False)

    def _print_error(self, error: psycopg.Error) -> None:
        diagnostic = error.diag
        self._console.print(
            f"{diagnostic.severity or 'ERROR'}:  {diagnostic.message_primary or error}",
            style="red",
            markup=False,
        )
        for label, note in (
            ("DETAIL", diagnostic.message_detail),
            ("HINT", diagnostic.message_hint),
        ):
            if note:
                self._console.print(f"{label}:  {note}", markup=False)

    def names(self) -> list[str]:
        """Relations and columns, for completion."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' "
                "UNION SELECT column_name FROM information_schema.columns WHERE table_schema = 'public'"
            )
            return [str(row[0]) for row in cursor]


def run_shell(dsn: str | None, commands: Sequence[str]) -> int:
    """Run `commands`, or prompt (or read standard input) until its end. Returns the exit code."""
    console = Console(soft_wrap=True)
    try:
        connection = psycopg.connect(dsn or DEFAULT_DSN, autocommit=True)
    except psycopg.Error as error:
        print(f"shardforge: cannot connect: {error}", file=sys.stderr)
        return 2
    with connection:
        shell = Shell(connection, console)
        if commands:
            return 0 if all(shell.run(command) for command in commands) else 1
        if not sys.stdin.isatty():
            return 0 if shell.run(sys.stdin.read()) else 1
        return _prompt(shell, connection)


def _prompt(shell: Shell, connection: Connection) -> int:
    history = Path.home() / ".shardforge_history"
    words = WordCompleter([*KEYWORDS.split(), *shell.names()], ignore_case=True)
    prompt: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)), completer=words, lexer=PygmentsLexer(PostgresLexer),
        complete_while_typing=False,
    )  # fmt: skip
    pending = ""
    while True:
        mark = {"INTRANS": "*", "INERROR": "!"}.get(connection.info.transaction_status.name, "")
        try:
            line = prompt.prompt(f"{connection.info.dbname}{'-' if pending else '='}{mark}> ")
        except KeyboardInterrupt:
            pending = ""
            continue
        except EOFError:
            return 0
        if not pending and line.strip() in ("\\q", "quit", "exit"):
            return 0
        pending += line + "\n"
        if pending.lstrip().startswith("\\") or pending.rstrip().endswith(";"):
            shell.run(pending.strip())
            pending = ""
