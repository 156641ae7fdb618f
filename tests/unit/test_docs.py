"""What the documents say exists: configuration keys, modules, commands, metrics, links, the version."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from shardforge import __version__
from shardforge.cli.main import app
from shardforge.config import Config, entries, load

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "shardforge"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
CODE = re.compile(r"`([^`\n]+)`")


def read(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def documented_keys() -> dict[tuple[str, str], tuple[Any, str]]:
    """(section, key) to (default, meaning) as docs/configuration.md has them."""
    found: dict[tuple[str, str], tuple[Any, str]] = {}
    section = ""
    for line in read("docs", "configuration.md").splitlines():
        if heading := re.fullmatch(r"## \[(\w+)\]", line):
            section = heading[1]
        elif row := re.fullmatch(r"\| `(\w+)` \| `(.*)` \| (.*) \|", line):
            assert (section, row[1]) not in found, f"{section}.{row[1]} stands there twice"
            found[section, row[1]] = tomllib.loads(f"value = {row[2]}")["value"], row[3]
    return found


def test_every_key_is_in_the_reference_and_no_other() -> None:
    keys = {(section, name) for section, name, _, _ in entries(Config())}
    assert set(documented_keys()) == keys


def test_the_reference_says_what_the_keys_say() -> None:
    documented = documented_keys()
    for section, name, _, doc in entries(Config()):
        assert documented[section, name][1] == doc, f"{section}.{name}"


def test_the_reference_gives_the_defaults(tmp_path: Path) -> None:
    lines = []
    for section in fields(Config):
        lines.append(f"[{section.name}]")
        for (part, name), (default, _) in documented_keys().items():
            if part == section.name:
                quoted = f'"{default}"' if isinstance(default, str) else str(default).lower()
                lines.append(f"{name} = {quoted}")
    file = tmp_path / "documented.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert load(file) == Config()


def test_the_sample_has_every_key_with_its_meaning() -> None:
    text = read("docs", "shardforge.toml")
    sample = tomllib.loads(text)
    keys = {(section, name): doc for section, name, _, doc in entries(Config())}
    assert {(section, name) for section, table in sample.items() for name in table} == set(keys)
    assert load(ROOT / "docs" / "shardforge.toml") == Config()
    lines = text.splitlines()
    section = ""
    for number, line in enumerate(lines):
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif setting := re.match(r"(\w+) = ", line):
            doc = keys[section, setting[1]]
            assert lines[number - 1] == f"# {doc}", f"[{section}] {setting[1]}"


def modules_named(document: str) -> set[str]:
    """Words in code style that look like a module or package of the source."""
    words = {word for code in CODE.findall(document) for word in code.split()}
    expanded = set()
    for word in words:
        braces = re.fullmatch(r"(.*)\{([\w,]+)\}(.*)", word)
        expanded |= {braces[1] + p + braces[3] for p in braces[2].split(",")} if braces else {word}
    return {
        w for w in expanded if re.fullmatch(r"[a-z_][\w/]*(\.py|/)|(sql|server|tests)/[\w/]+", w)
    }


OUTSIDE = ("cluster/", "shards/", "logs/", "data/", "wal/", "docs/", "bench/")
"""Folders of the data directory, and of the repository beside the source."""


@pytest.mark.parametrize(
    "name", ["docs/ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "docs/sql.md"]
)
def test_modules_named_exist(name: str) -> None:
    files = {f.relative_to(SOURCE).as_posix() for f in SOURCE.rglob("*.py")}
    packages = {Path(f).parent.as_posix() for f in files}
    for module in modules_named(read(*name.split("/"))):
        if (ROOT / module).exists() or module.startswith(OUTSIDE):
            continue
        if module.endswith(".py"):
            assert any(f"/{file}".endswith(f"/{module}") for file in files), module
        else:
            assert module.rstrip("/") in packages, module


def test_every_package_is_on_the_map() -> None:
    text = read("docs", "ARCHITECTURE.md")
    named = modules_named(text) | set(CODE.findall(text))
    for package in sorted(f.parent.name for f in SOURCE.glob("*/__init__.py")):
        inside = [word for word in named if word.startswith((f"{package}/", f"{package}.py"))]
        assert inside, f"{package}/ is not on the code map"


def command(words: list[str]) -> Any:
    """The command that `shardforge <words>` runs; fails when there is none."""
    found: Any = typer.main.get_command(app)
    for word in words:
        assert word in getattr(found, "commands", {}), f"no command {' '.join(words)}"
        found = found.commands[word]
    return found


def shown_commands(text: str) -> list[str]:
    """Lines and code words that a reader would type."""
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return lines + [" ".join(c.split()) for c in re.findall(r"`([^`]+)`", prose)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_exist(document: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    for line in shown_commands(document.read_text(encoding="utf-8")):
        if made := re.match(r"make ([a-z][\w-]*)\b", line):
            assert made[1] in targets, line
        if ran := re.match(r"shardforge ((?:[a-z]+ ?)+)(.*)", line):
            words = ran[1].split()
            known = command(words)
            options = {o for p in known.params for o in p.opts} | {"--help"}
            assert set(re.findall(r"--[\w-]+", ran[2])) <= options, line


def test_every_command_is_documented() -> None:
    text = " ".join(d.read_text(encoding="utf-8") for d in DOCUMENTS)
    for name in command([]).commands:
        assert f"shardforge {name}" in text, name


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_metrics_named_exist() -> None:
    source = "\n".join(f.read_text(encoding="utf-8") for f in SOURCE.rglob("*.py"))
    for metric in set(re.findall(r"`shardforge_(\w+)", read("docs", "operations.md"))):
        assert re.search(rf'"(shardforge_)?{metric}"', source), metric


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert project["version"] == __version__
    assert re.search(rf"^## {re.escape(__version__)}\b", read("CHANGELOG.md"), re.MULTILINE)


def test_decision_records_are_numbered_and_titled() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [int(record.name[:4]) for record in records]
    assert len(set(numbers)) == len(numbers)
    for record in records:
        assert record.read_text(encoding="utf-8").startswith(f"# {int(record.name[:4])}"), (
            record.name
        )
