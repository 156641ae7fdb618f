"""The configuration: one frozen `Config`, read and checked once, at start.

Four sources, later ones win: defaults, `shardforge.toml`, environment (`SHARDFORGE_<SECTION>_<KEY>`), flags.
An unknown section or key, or a bad value, is refused with where it stands, the value and what was expected; nothing
is guessed.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from shardforge.errors import QueryError
from shardforge.machine import memory_bytes

MIB = 1024 * 1024
LOCALITY_MAX = 256
"""Characters of a locality."""
_SIZE_UNITS = {"B": 1, "KB": 1024, "MB": MIB, "GB": 1024 * MIB, "TB": 1024 * 1024 * MIB}


class ConfigError(QueryError):
    """A configuration that cannot be used; `str` names the source, the key, the value and what was expected."""

    prefix = "Configuration error: "
    default_sqlstate = "F0000"


def key(default: Any, check: Callable[[Any], Any], expected: str, doc: str) -> Any:
    """A configuration key. `check` returns the value to keep, or raises ValueError."""
    metadata = {"check": check, "expected": expected, "doc": doc}
    return field(default=default, metadata=metadata)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


_TAG = r"[A-Za-z][A-Za-z0-9_-]*=[A-Za-z0-9_.:-]+"


def _locality(value: Any) -> str:
    """Tags from the widest place to the narrowest, each key once."""
    tags = _text(value).replace(" ", "")
    if tags and not re.fullmatch(f"{_TAG}(,{_TAG})*", tags):
        raise ValueError
    keys = [tag.partition("=")[0] for tag in tags.split(",")]
    if len(tags) > LOCALITY_MAX or len(set(keys)) < len(keys):
        raise ValueError
    return tags


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,62}", value):
        raise ValueError
    return value


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return value

    return check


def _fraction(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return check


def _choice(*options: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in options:
            raise ValueError
        return str(value)

    return check


def _size(low: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        return size_in_bytes(value, low)

    return check


def _size_or_none(low: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        return 0 if value in (0, "0") and not isinstance(value, bool) else size_in_bytes(value, low)

    return check


def size_in_bytes(value: Any, low: int = 0) -> int:
    """Bytes of "256MB", "64 KB" or a plain number of bytes; raises ValueError below `low` or when not a size."""
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, int):
        count = value
    else:
        match = (
            re.fullmatch(r"(\d+)\s*([KMGT]?B)?", value.strip()) if isinstance(value, str) else None
        )
        if match is None:
            raise ValueError
        count = int(match[1]) * _SIZE_UNITS[match[2] or "B"]
    if count < low:
        raise ValueError
    return count


def _address(value: Any) -> str:
    host, port = split_address(_text(value))
    if not 0 <= port <= 65535:
        raise ValueError
    if re.fullmatch(r"[0-9.]+", host):
        ipaddress.ip_address(host)
    return value  # type: ignore[no-any-return]  # checked to be text above


def split_address(value: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port"; raises ValueError otherwise."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:]+)\]|([A-Za-z0-9._*-]+)):(\d{1,5})", value)
    if match is None:
        raise ValueError(value)
    return match[1] or match[2], int(match[3])


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Who this node is and where it listens."""

    name: str = key(
        "shardforge",
        _name,
        "a name: a letter, then letters, digits, _ or -",
        "Name of the cluster.",
    )
    node_id: int = key(
        0,
        _integer(0, 65535),
        "an integer from 0 to 65535",
        "This node's id. 0: 1 in a new cluster, or what the cluster says on joining. Never reuse one.",
    )
    bind_address: str = key(
        "127.0.0.1:5432",
        _address,
        'text like "127.0.0.1:5432"',
        "Where clients connect; port 0 picks a free one.",
    )
    advertise_address: str = key(
        "", lambda v: v if v == "" else _address(v), 'text like "10.0.0.5:5432", or ""',
        "Where other nodes reach this one; empty: bind_address.",
    )  # fmt: skip
    observer: bool = key(
        False, _flag, "true or false",
        "Join as an observer: hold every shard, never vote. Counts when the node joins, and from then on.",
    )  # fmt: skip
    locality: str = key(
        "", _locality, 'tags like "zone=a,host=h1", each key once, or ""',
        "Where this node stands, the widest place first; replicas are kept apart. Empty: a place of its own.",
    )  # fmt: skip
    data_directory: str = key("./data", _text, "a folder", "Everything this node keeps.")


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """Timing and log keeping of the shards' Raft groups."""

    election_timeout_ms: int = key(
        150, _integer(10, 60_000), "an integer from 10 to 60000",
        "A follower without news from its leader for this long campaigns.",
    )  # fmt: skip
    heartbeat_interval_ms: int = key(
        50, _integer(5, 10_000), "an integer from 5 to 10000, below half of election_timeout_ms",
        "How often a leader shows that it is there; half as often where nobody has asked for anything for two seconds.",
    )  # fmt: skip
    snapshot_interval_entries: int = key(
        10_000, _integer(100, 10**9), "an integer from 100 to 1000000000",
        "After this many applied entries a shard's data is flushed, so that its log can be cut.",
    )  # fmt: skip
    max_log_entries: int = key(
        100_000, _integer(1000, 10**9), "an integer from 1000 to 1000000000, not below snapshot_interval_entries",
        "A shard's log is cut to what was not flushed yet once it holds more entries than this.",
    )  # fmt: skip
    max_snapshot_rate: int = key(
        64 * MIB, _size(4 * MIB), 'a size like "64MB", 4MB or more',
        "How much a node takes a second, on the average, of what is copied to it when replicas move or are behind.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """How bytes are kept."""

    engine: str = key(
        "rocksdb", _choice("rocksdb", "memory"), '"rocksdb" or "memory"', "memory keeps nothing."
    )
    compression: str = key(
        "lz4",
        _choice("none", "lz4", "zstd", "snappy"),
        '"none", "lz4", "zstd" or "snappy"',
        "Of data blocks.",
    )
    block_cache_size: int = key(
        256 * MIB,
        _size(MIB),
        'a size like "256MB", 1MB or more',
        "Shared by all shards: half for blocks of files, half for the newest versions of rows.",
    )
    write_buffer_size: int = key(
        64 * MIB, _size(MIB), 'a size like "64MB", 1MB or more', "Shared by all shards."
    )
    gc_retention_sec: int = key(
        600,
        _integer(1, 30 * 86400),
        "an integer from 1 to 2592000",
        "Old row versions are kept this long.",
    )


@dataclass(frozen=True, slots=True)
class ReplicationConfig:
    """Copies of each shard."""

    factor: int = key(
        3,
        _integer(1, 9),
        "an odd integer from 1 to 9",
        "Voting replicas of each shard, once there are so many nodes.",
    )
    down_after_sec: int = key(
        60,
        _integer(1, 86_400),
        "an integer from 1 to 86400",
        "A node that does not answer for so long is replaced by one without replicas.",
    )
    consistency_level: str = key(
        "strong", _choice("strong", "bounded", "eventual"), '"strong", "bounded" or "eventual"',
        "What reads accept: below strong, nodes that do not serve answer sessions that begin as read only.",
    )  # fmt: skip
    max_staleness_ms: int = key(
        10_000,
        _integer(1, 86_400_000),
        "an integer from 1 to 86400000",
        "How old at most what a bounded read sees may be.",
    )
    async_replication: bool = key(
        False,
        _flag,
        "true or false",
        "Answer COMMIT when the leader's own disk has it, before a majority does: losing that node loses such commits.",
    )


@dataclass(frozen=True, slots=True)
class ShardingConfig:
    """How the key space is cut."""

    strategy: str = key(
        "hash", _choice("hash", "range"), '"hash" or "range"', "For tables that do not say."
    )
    initial_shard_count: int = key(
        1,
        _integer(1, 64),
        "an integer from 1 to 64",
        "Shards made at the first start, besides the meta shard.",
    )
    max_shard_size: int = key(
        512 * MIB,
        _size(MIB),
        'a size like "512MB", 1MB or more',
        "A larger shard is split in two, while it serves.",
    )
    max_shard_load: int = key(
        2500,
        _integer(0, 1_000_000),
        "an integer from 0 to 1000000",
        "A shard that another node leads, and that is asked more than this a second, is split too; 0: never.",
    )
    merge_after_sec: int = key(
        300,
        _integer(0, 86_400),
        "an integer from 0 to 86400",
        "Neighbours that are small together for so long, and were not split by hand, become one shard; 0: never.",
    )
    rebalance_threshold: float = key(
        0.2,
        _fraction(0.01, 1.0),
        "a number from 0.01 to 1",
        "How far from the mean of all nodes, as a share of it, the bytes of a node may be before a shard moves.",
    )


@dataclass(frozen=True, slots=True)
class SqlConfig:
    """Limits of sessions."""

    query_timeout_sec: float = key(
        0,
        _fraction(0, 86400),
        "a number from 0 to 86400",
        "statement_timeout of new sessions; 0 is none.",
    )
    max_connections: int = key(
        100, _integer(1, 10_000), "an integer from 1 to 10000", "More are refused (53300)."
    )
    statement_cache_size: int = key(
        1000, _integer(0, 100_000), "an integer from 0 to 100000", "Plans kept, by statement text."
    )
    slow_statement_ms: int = key(
        1000, _integer(-1, 86_400_000), "an integer from -1 to 86400000",
        "Statements that take longer go to query.log; -1 logs none, 0 all.",
    )  # fmt: skip
    work_memory: int = key(
        256 * MIB,
        _size(MIB),
        'a size like "256MB", 1MB or more',
        "What one statement may hold in memory (53200).",
    )
    transaction_memory: int = key(
        0, _size_or_none(16 * MIB), 'a size like "2GB", 16MB or more, or 0',
        "What the uncommitted writes of all sessions may hold in memory together (53200); 0: half of the machine's.",
    )  # fmt: skip

    transaction_stream_size: int = key(
        32 * MIB, _size(MIB), 'a size like "32MB", 1MB or more',
        "Uncommitted writes of a transaction beyond this go to their shards before its commit; "
        "a place for each key stays.",
    )  # fmt: skip

    @property
    def transaction_bytes(self) -> int:
        """`transaction_memory`, or what it stands for."""
        return self.transaction_memory or memory_bytes() // 2

    @property
    def stream_bytes(self) -> int:
        """`transaction_stream_size`, or less where the memory is small."""
        return min(self.transaction_stream_size, self.transaction_bytes // 4)


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Who may connect, and how."""

    authentication: str = key(
        "trust-loopback", _choice("trust-loopback", "scram-sha-256", "trust"),
        '"trust-loopback", "scram-sha-256" or "trust"', "trust-loopback asks everybody but 127.0.0.1 and ::1.",
    )  # fmt: skip
    tls_certificate: str = key(
        "", _text, 'a PEM file, or ""', "The server's certificate chain; empty: no TLS."
    )
    tls_key: str = key("", _text, 'a PEM file, or ""', "The certificate's private key.")
    tls_ca: str = key(
        "",
        _text,
        'a PEM file, or ""',
        "Who signs the nodes' certificates: with it, nodes talk over mutual TLS.",
    )
    tls_required: bool = key(False, _flag, "true or false", "Refuse connections without TLS.")


@dataclass(frozen=True, slots=True)
class MonitoringConfig:
    """What operators see."""

    metrics_port: int = key(
        0,
        _integer(0, 65535),
        "an integer from 0 to 65535",
        "Prometheus text on http://<bind host>:<port>/metrics; 0 is off.",
    )
    log_level: str = key(
        "info",
        _choice("debug", "info", "warning", "error"),
        '"debug", "info", "warning" or "error"',
        "Of system.log.",
    )
    enable_tracing: bool = key(False, _flag, "true or false", "OpenTelemetry spans of statements.")
    otlp_endpoint: str = key("", _text, 'a URL, or ""', "Where spans go; empty: to system.log.")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set."""

    cluster: ClusterConfig = ClusterConfig()
    raft: RaftConfig = RaftConfig()
    storage: StorageConfig = StorageConfig()
    replication: ReplicationConfig = ReplicationConfig()
    sharding: ShardingConfig = ShardingConfig()
    sql: SqlConfig = SqlConfig()
    security: SecurityConfig = SecurityConfig()
    monitoring: MonitoringConfig = MonitoringConfig()


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[tuple[str, str], Any] | None = None,
) -> Config:
    """The configuration from all four sources. Raises ConfigError on the first thing that is wrong."""
    config = Config()
    if file is not None:
        for (section, name), value in _read_file(file).items():
            config = _with(config, str(file), section, name, value)
    for variable, value in sorted((environment or {}).items()):
        if variable.startswith("SHARDFORGE_"):
            section, _, name = variable.removeprefix("SHARDFORGE_").lower().partition("_")
            config = _with(config, f"environment variable {variable}", section, name, value)
    for (section, name), value in (flags or {}).items():
        config = _with(config, "command line", section, name, value)
    return _checked_together(config)


def _read_file(file: Path) -> dict[tuple[str, str], Any]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from error
    values: dict[tuple[str, str], Any] = {}
    for section, table in document.items():
        if not isinstance(table, dict):
            raise ConfigError(
                f'{file}: "{section}" stands outside a section; expected one of {_section_names()}'
            )
        for name, value in table.items():
            values[section, name] = value
    return values


def _section_names() -> str:
    return ", ".join(f"[{section.name}]" for section in fields(Config))


def _with(config: Config, source: str, section: str, name: str, value: Any) -> Config:
    part = getattr(config, section, None) if section in {f.name for f in fields(Config)} else None
    if part is None:
        raise ConfigError(
            f"{source}: unknown section [{section}]; expected one of {_section_names()}"
        )
    known = {f.name: f for f in fields(part)}
    if name not in known:
        raise ConfigError(
            f"{source}: unknown key {section}.{name}; expected one of {', '.join(sorted(known))}"
        )
    metadata = known[name].metadata
    try:
        checked = metadata["check"](value)
    except (ValueError, TypeError):
        raise ConfigError(
            f"{source}: {section}.{name} = {value!r}: expected {metadata['expected']}"
        ) from None
    return replace(config, **{section: replace(part, **{name: checked})})


def _checked_together(config: Config) -> Config:
    raft = config.raft
    if raft.heartbeat_interval_ms * 2 > raft.election_timeout_ms:
        raise ConfigError(
            f"raft.heartbeat_interval_ms = {raft.heartbeat_interval_ms}: expected at most half of "
            f"raft.election_timeout_ms = {raft.election_timeout_ms}"
        )
    if raft.max_log_entries < raft.snapshot_interval_entries:
        raise ConfigError(
            f"raft.max_log_entries = {raft.max_log_entries}: expected at least "
            f"raft.snapshot_interval_entries = {raft.snapshot_interval_entries}"
        )
    if config.replication.factor % 2 == 0:
        raise ConfigError(
            f"replication.factor = {config.replication.factor}: expected an odd integer from 1 to 9"
        )
    security = config.security
    if bool(security.tls_certificate) != bool(security.tls_key):
        raise ConfigError("security.tls_certificate and security.tls_key: expected both or neither")
    if security.tls_ca and not security.tls_certificate:
        raise ConfigError("security.tls_ca: expected security.tls_certificate and security.tls_key")
    if security.tls_required and not security.tls_certificate:
        raise ConfigError(
            "security.tls_required = true: expected security.tls_certificate and security.tls_key"
        )
    return config


def entries(config: Config) -> list[tuple[str, str, Any, str]]:
    """(section, key, value, documentation) of every key, in file order."""
    return [
        (section.name, item.name, getattr(part, item.name), item.metadata["doc"])
        for section in fields(config)
        for part in (getattr(config, section.name),)
        for item in fields(part)
    ]
