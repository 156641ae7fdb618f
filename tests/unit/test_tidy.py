"""The rules of the house that a tool can check: sizes, doors, purity, words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "shardforge"
FILES = sorted(f for f in SOURCE.rglob("*.py") if "_pb2" not in f.name)  # those are generated
LINES_MAX = 600

DOORS = {
    "rocksdict": {"storage/rocksdb.py"},
    "prometheus_client": {"adapters/metrics.py"},
    "opentelemetry": {"adapters/tracing.py"},
    "structlog": {"adapters/logs.py"},
    "uvloop": {"adapters/datasync.py", "cli/serve.py"},
    "grpc": {
        "server/grpc/health.py",
        "server/grpc/passing.py",
        "server/grpc/service.py",
        "client/__init__.py",
        "client/calls.py",
    },
}
PURE = ("raft/", "sql/bind/", "sql/plan/", "sql/functions/", "sql/types/", "keys.py", "txn/locks.py", "txn/deadlock.py",
        "shard/descriptor.py", "shard/command.py", "storage/rowcodec.py", "storage/mvcc.py",
        "server/pgwire/frontend.py", "server/pgwire/backend.py", "server/peer/codec.py",
        "sql/session/copy_format.py", "sql/session/copy_binary.py",
        "sql/session/copy_options.py")  # fmt: skip
WAITING = {"asyncio", "time", "threading", "socket", "os", "logging"}


def name_of(file: Path) -> str:
    return file.relative_to(SOURCE).as_posix()


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_are_of_a_readable_size(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").count("\n")
    assert lines <= LINES_MAX, f"{lines} lines: it hides two ideas"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_module_says_what_it_is(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module without a docstring"


def test_each_library_has_one_door() -> None:
    for file in FILES:
        for library, doors in DOORS.items():
            if library in imports(file):
                assert name_of(file) in doors, f"{name_of(file)} imports {library}"


@pytest.mark.parametrize("file", [f for f in FILES if name_of(f).startswith(PURE)], ids=name_of)
def test_pure_code_does_not_wait(file: Path) -> None:
    assert not imports(file) & WAITING


def test_no_unfinished_business() -> None:
    forbidden = re.compile(
        r"NotImplementedError|\bTODO\b|\bFIXME\b|except( Exception)?: *pass|# *type: *ignore$",
        re.MULTILINE,
    )
    for file in FILES:
        assert not forbidden.search(file.read_text(encoding="utf-8")), name_of(file)


def test_no_paths_of_one_machine() -> None:
    machine = re.compile(r"(?<![\w./])/(?:work|root|home/\w+)/")
    for file in [
        *FILES,
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("tests/**/*.py"),
        *ROOT.glob("*.md"),
    ]:
        assert not machine.search(file.read_text(encoding="utf-8")), file


def test_the_lock_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock
    assert "--hash=sha256:" in lock
