"""The compiled build: its lists are true, and what was compiled runs. Every other test tells whether it is right."""

from __future__ import annotations

import asyncio
import enum
import importlib.util
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import shardforge
from shardforge.telemetry import COMPILED
from tests.inprocess import run, running_node, session_of

ROOT = Path(__file__).parents[2]


def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_native(cls: type) -> bool:
    """Whether mypyc makes the class a struct; the standard library's own kinds of class stay as they are."""
    return not issubclass(cls, (enum.Enum, BaseException, tuple)) and not getattr(
        cls, "_is_protocol", False
    )


def test_the_lists_name_modules_of_today() -> None:
    build = hook()
    compiled = build.modules()
    interpreted = [f"{build.PACKAGE}.{name}" for name in build.INTERPRETED]
    assert len({*compiled, *interpreted}) == len(compiled) + len(interpreted)
    for module in [*compiled, *interpreted]:
        assert (ROOT / build.source_of(module)).is_file(), module


def test_no_interpreted_class_derives_from_a_compiled_one() -> None:
    compiled = set(hook().modules())
    for found in pkgutil.walk_packages(shardforge.__path__, "shardforge."):
        if found.name == "shardforge.__main__":
            continue
        for name, cls in inspect.getmembers(importlib.import_module(found.name), inspect.isclass):
            if cls.__module__ == found.name and found.name not in compiled:
                natives = [b for b in cls.__mro__ if b.__module__ in compiled and is_native(b)]
                assert not natives, f"{found.name}.{name} needs its module compiled"


@pytest.mark.skipif(not COMPILED, reason="not the compiled build")
def test_what_was_compiled_runs() -> None:
    for module in hook().modules():
        origin = importlib.import_module(module).__file__
        assert origin is not None
        assert not origin.endswith(".py"), module


@pytest.mark.skipif(not COMPILED, reason="not the compiled build")
def test_a_transaction_of_compiled_modules() -> None:
    async def answer() -> list[tuple[object, ...]]:
        async with running_node() as node:
            session = session_of(node)
            assert not inspect.isfunction(type(session).prepare), "the session is interpreted"
            for text in (
                "CREATE TABLE t (id int PRIMARY KEY, v text)",
                "INSERT INTO t VALUES (1, 'one'), (2, 'two')",
                "UPDATE t SET v = v || '!' WHERE id = 2",
                "DELETE FROM t WHERE id = 1",
            ):
                await run(session, text)
            return await run(session, "SELECT id, v FROM t")

    assert asyncio.run(answer()) == [(2, "two!")]
