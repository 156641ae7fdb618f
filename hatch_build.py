"""The compiled build: the hot modules in one library of C extensions, made by mypyc, in the wheel beside their sources.

Hatch calls the hook only when HATCH_BUILD_HOOK_ENABLE_CUSTOM is set (`make compiled`); any other build is pure Python.
Invariant: a compiled module behaves as its source does; the tests pass in both forms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE: Final = Path("src")
PACKAGE: Final = "shardforge"

COMPILED: Final = {
    "": ("keys", "telemetry"),
    "adapters": ("blocking", "clock"),
    "raft": (
        "core", "election", "follower", "leader", "log", "membership", "progress", "quorum", "rawnode",
        "replication", "state", "tracker",
    ),
    "server.pgwire": (
        "backend", "connection", "conversation", "extended", "flow", "formats", "frontend", "output", "server",
    ),
    "shard": (
        "application", "consensus", "flushing", "log", "machine", "member", "peers", "pending", "proposals", "replica",
        "router", "weights",
    ),
    "sql.catalog": ("following", "sequences", "store", "tablelocks"),
    "sql.execute": (
        "access", "constraints", "context", "deferral", "onerow", "point", "rows", "rowwriter", "target", "update",
    ),
    "sql.session": ("instance", "outcome", "prepared", "session", "settings", "undecided", "utility"),
    "sql.types": ("integers",),
    "storage": ("mvcc", "newest_cache", "rocksdb", "rowcodec", "wal", "wal_format", "wal_index"),
    "txn": (
        "commit", "coordinator", "deadlock", "followed", "following", "garbage", "lease", "locks", "oracle",
        "participant", "snapshots", "standby", "timestamps", "transaction", "waits", "writes",
    ),
}  # fmt: skip
"""What is compiled, by package: where the time of point reads and small writes goes."""

INTERPRETED: Final = {
    "sql.execute.keyspace": "its cached properties return functions",
    "sql.execute.scans": "asynchronous generators",
    "sql.session.cursors": "asynchronous generators",
    "sql.session.scripts": "asynchronous generators",
    "sql.session.statements": "mypyc crashes on it",
    "storage.valuecodec": "functions as class attributes",
    "txn.reads": "asynchronous generators",
    "txn.spans": "asynchronous generators",
}
"""Hot modules that mypyc (2.4) does not take, and why."""


def modules() -> list[str]:
    """The full names of what is compiled."""
    return [
        ".".join(filter(None, (PACKAGE, package, name)))
        for package, names in COMPILED.items()
        for name in names
    ]


def source_of(module: str) -> Path:
    """The file of a module, from the project's root."""
    return SOURCE.joinpath(*module.split(".")).with_suffix(".py")


class CompiledBuildHook(BuildHookInterface[Any]):
    """Adds the extension modules to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell Hatch what to pack."""
        made = compile_modules(Path(self.root, "build", "compiled"))
        build_data["force_include"].update(made)
        build_data["infer_tag"] = True
        build_data["pure_python"] = False


def compile_modules(folder: Path) -> dict[str, str]:
    """Extension modules in `folder`, and where they belong in the package; what has not changed is kept."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    extensions = mypycify(
        ["--config-file=pyproject.toml", *(str(source_of(module)) for module in modules())],
        opt_level="2",
        debug_level="0",
        multi_file=True,
        group_name=PACKAGE,
        target_dir=str(folder / "c"),
    )
    command = Distribution({"name": PACKAGE, "ext_modules": extensions}).get_command_obj(
        "build_ext"
    )
    command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "objects")
    command.ensure_finalized()
    command.run()
    return {made: str(Path(made).relative_to(command.build_lib)) for made in command.get_outputs()}
