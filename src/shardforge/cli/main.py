"""The command line: start, sql, config, version. Errors are one clear line, with exit code 2."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from shardforge import __version__
from shardforge.cli import cluster, shard
from shardforge.cli.demo import demo
from shardforge.cli.output import fail
from shardforge.cli.simulate import simulate
from shardforge.config import Config, ConfigError, entries, load
from shardforge.errors import DatabaseError
from shardforge.telemetry import COMPILED

app = typer.Typer(
    help="ShardForge: a distributed, PostgreSQL-compatible SQL database.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
config_app = typer.Typer(help="Check and show the configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(cluster.app, name="cluster")
app.add_typer(shard.app, name="shard")

ConfigOption = Annotated[Path | None, typer.Option("--config", help="A shardforge.toml.")]


@app.command()
def start(
    config: ConfigOption = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where this node keeps its data.")] = None,
    bind: Annotated[str | None, typer.Option(help="HOST:PORT to listen on.")] = None,
    join: Annotated[
        list[str] | None, typer.Option(help="HOST:PORT of a node whose cluster a new node joins.")
    ] = None,
    observer: Annotated[
        bool,
        typer.Option("--observer", help="Join as a node that holds every shard and never votes."),
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics; 0 is off.")
    ] = None,
) -> None:
    """Start a node and serve until Ctrl-C or SIGTERM."""
    flags: dict[tuple[str, str], Any] = {
        ("cluster", "data_directory"): None if data_dir is None else str(data_dir),
        ("cluster", "bind_address"): bind,
        ("cluster", "observer"): observer or None,
        ("monitoring", "metrics_port"): metrics_port,
    }
    try:
        settings = load(
            config, os.environ, {name: value for name, value in flags.items() if value is not None}
        )
        from shardforge.cli.serve import serve  # other commands need none of the server

        serve(settings, join or [])
    except DatabaseError as error:
        fail(error)


app.command()(demo)
app.command("sim")(simulate)


@app.command()
def sql(
    dsn: Annotated[str | None, typer.Argument(help="A PostgreSQL connection string.")] = None,
    command: Annotated[
        list[str] | None, typer.Option("--command", "-c", help="Run this and exit.")
    ] = None,
) -> None:
    """Open a SQL shell, or run statements with -c."""
    from shardforge.cli.shell import run_shell  # loads the driver and the prompt

    try:
        raise typer.Exit(run_shell(dsn, command or []))
    except DatabaseError as error:
        fail(error)


@config_app.command("check")
def config_check(file: Annotated[Path, typer.Argument(help="The file to check.")]) -> None:
    """Check a configuration file."""
    try:
        load(file, {}, {})
    except ConfigError as error:
        fail(error)
    typer.echo(f"{file}: OK")


@config_app.command("show")
def config_show(config: ConfigOption = None) -> None:
    """Show every key with its value, as TOML."""
    try:
        settings = load(config, os.environ, {})
    except ConfigError as error:
        fail(error)
    else:
        typer.echo(as_toml(settings))


def as_toml(settings: Config) -> str:
    """The configuration as a file that could be loaded again."""
    lines: list[str] = []
    last = ""
    for section, name, value, doc in entries(settings):
        if section != last:
            lines += ["", f"[{section}]"]
            last = section
        lines.append(f"{name} = {_toml_value(value)}  # {doc}")
    return "\n".join(lines).lstrip("\n")


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)


@app.command()
def version() -> None:
    """Print the version, and whether the build is the compiled one."""
    form = ", compiled" if COMPILED else ""
    typer.echo(f"shardforge {__version__} (Python {sys.version.split()[0]}{form})")


def main() -> None:
    """The entry point of the `shardforge` command."""
    app()
