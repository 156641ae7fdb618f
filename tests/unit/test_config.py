"""Configuration: every key is known, checked, documented, and refused with where, what and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardforge.config import (
    Config,
    ConfigError,
    entries,
    load,
    size_in_bytes,
    split_address,
)

SAMPLE = Path(__file__).parents[2] / "docs" / "shardforge.toml"


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "shardforge.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_defaults_are_valid() -> None:
    assert load() == Config()


def test_sources_override_in_order(tmp_path: Path) -> None:
    file = write(
        tmp_path, "[sql]\nmax_connections = 5\nquery_timeout_sec = 1.5\nstatement_cache_size = 7\n"
    )
    environment = {
        "SHARDFORGE_SQL_MAX_CONNECTIONS": "6",
        "SHARDFORGE_SQL_STATEMENT_CACHE_SIZE": "8",
        "HOME": "/x",
    }
    config = load(file, environment, {("sql", "statement_cache_size"): 9})
    assert (
        config.sql.query_timeout_sec,
        config.sql.max_connections,
        config.sql.statement_cache_size,
    ) == (1.5, 6, 9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sqll]\n", None),
        ("[sqll]\nx = 1\n", ["unknown section [sqll]", "[sql]"]),
        ("[sql]\nmax_connection = 1\n", ["unknown key sql.max_connection", "max_connections"]),
        ("[sql]\nmax_connections = 0\n", ["sql.max_connections = 0", "from 1 to 10000"]),
        ('[sql]\nmax_connections = "many"\n', ["sql.max_connections = 'many'", "from 1 to 10000"]),
        ("[sql]\nmax_connections = true\n", ["sql.max_connections = True"]),
        ('[storage]\nblock_cache_size = "3 potatoes"\n', ["storage.block_cache_size", '"256MB"']),
        (
            '[storage]\nengine = "leveldb"\n',
            ["storage.engine = 'leveldb'", '"rocksdb" or "memory"'],
        ),
        ('[cluster]\nbind_address = "nowhere"\n', ["cluster.bind_address", "127.0.0.1:5432"]),
        ('[cluster]\nbind_address = "1.2.3.400:1"\n', ["cluster.bind_address"]),
        ('[cluster]\nlocality = "here"\n', ["cluster.locality = 'here'", "zone=a,host=h1"]),
        ('[cluster]\nlocality = "zone=a,zone=b"\n', ["cluster.locality", "each key once"]),
        ('[cluster]\nlocality = "zone=a,"\n', ["cluster.locality"]),
        (f'[cluster]\nlocality = "zone={"a" * 300}"\n', ["cluster.locality"]),
        ("[raft]\nheartbeat_interval_ms = 100\n", ["raft.heartbeat_interval_ms = 100", "half"]),
        ("[raft]\nmax_log_entries = 5000\n", ["raft.max_log_entries = 5000", "at least"]),
        ("[replication]\nfactor = 2\n", ["replication.factor = 2", "odd"]),
        ("[replication]\nfactor = 4\n", ["replication.factor = 4", "odd"]),
        ('[security]\ntls_key = "x"\n', ["tls_certificate", "both or neither"]),
        ("stray = 1\n", ["stands outside a section"]),
        ("[sql\n", ["not valid TOML"]),
    ],
)
def test_bad_files_are_refused_with_the_reason(
    tmp_path: Path, text: str, words: list[str] | None
) -> None:
    file = write(tmp_path, text)
    if words is None:
        assert load(write(tmp_path, "[sql]\n")) == Config()
        return
    with pytest.raises(ConfigError) as caught:
        load(file)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read"):
        load(tmp_path / "nothing.toml")


def test_the_sample_file_names_every_key_with_its_default() -> None:
    assert load(SAMPLE) == Config()
    text = SAMPLE.read_text(encoding="utf-8")
    for section, name, *_ in entries(Config()):
        assert f"[{section}]" in text
        assert f"\n{name} = " in text


@pytest.mark.parametrize(
    ("text", "count"), [("1MB", 2**20), ("64 KB", 65536), ("5", 5), (7, 7), ("2GB", 2**31)]
)
def test_sizes(text: str | int, count: int) -> None:
    assert size_in_bytes(text) == count


def test_a_locality_is_tags_without_spaces() -> None:
    config = load(environment={"SHARDFORGE_CLUSTER_LOCALITY": "zone=eu-1, host=10.0.0.7:1"})
    assert config.cluster.locality == "zone=eu-1,host=10.0.0.7:1"


def test_addresses() -> None:
    assert split_address("[::1]:5432") == ("::1", 5432)
    assert split_address("localhost:1") == ("localhost", 1)
