"""How commands end when something is wrong: one clear line, a hint, and exit code 2."""

from __future__ import annotations

from typing import NoReturn

import typer

from shardforge.errors import DatabaseError

EXIT_UNUSABLE = 2


def fail(error: DatabaseError) -> NoReturn:
    """Say what is wrong, and exit."""
    typer.echo(f"shardforge: {error}", err=True)
    for note in (error.detail, error.hint):
        if note:
            typer.echo(f"  {note}", err=True)
    raise typer.Exit(EXIT_UNUSABLE)
