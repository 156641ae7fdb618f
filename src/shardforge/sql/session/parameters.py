"""The run-time parameters a session knows (PostgreSQL chapter 20), as one table.

A parameter is accepted only with values that mean here what they mean in PostgreSQL; parameters that PostgreSQL
has and that cannot change an answer (planner and maintenance hints) are accepted and kept. Anything else is 42704
or 22023.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from shardforge.errors import QueryError
from shardforge.sql.functions.datetime_arithmetic import timestamp_pl_interval
from shardforge.sql.types.interval_text import parse_interval
from shardforge.sql.types.timezone import interval_zone_name, timezone_setting

_TIME_UNITS_MS = {"us": 0.001, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: `normalize` returns the text to keep, or raises ValueError."""

    name: str
    default: str
    normalize: Callable[[str], str]
    reported: bool = False
    """Sent to the client as ParameterStatus whenever it changes."""
    read_only: bool = False
    description: str = ""


def _any(value: str) -> str:
    return value


def _boolean(value: str) -> str:
    low = value.lower()
    if low in ("on", "true", "yes", "1", "t", "y"):
        return "on"
    if low in ("off", "false", "no", "0", "f", "n"):
        return "off"
    raise ValueError


def _milliseconds(value: str) -> str:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)?", value.strip())
    if match is None:
        raise ValueError
    total = round(float(match[1]) * _TIME_UNITS_MS[match[2] or "ms"])
    if total > 2**31 - 1:
        raise ValueError
    for unit in ("d", "h", "min", "s"):
        size = int(_TIME_UNITS_MS[unit])
        if total and total % size == 0:
            return f"{total // size}{unit}"
    return f"{total}ms" if total else "0"


def milliseconds(value: str) -> int:
    """Milliseconds of a kept time value such as "30s"."""
    match = re.fullmatch(r"(\d+)(ms|s|min|h|d)?", value)
    assert match is not None, "normalized when it was set"
    return int(int(match[1]) * _TIME_UNITS_MS[match[2] or "ms"])


def _one_of(*options: str) -> Callable[[str], str]:
    def normalize(value: str) -> str:
        if value.lower() not in options:
            raise ValueError
        return value.lower()

    return normalize


def _integer(low: int, high: int) -> Callable[[str], str]:
    def normalize(value: str) -> str:
        number = int(value)
        if not low <= number <= high:
            raise ValueError
        return str(number)

    return normalize


def _float(value: str) -> str:
    float(value)
    return value


_INTERVAL = re.compile(r"interval\s*'([^']*)'", re.IGNORECASE)


def _time_zone(value: str) -> str:
    if not value.lower().startswith("interval"):
        return timezone_setting(value)
    match = _INTERVAL.fullmatch(value)
    if match is None:
        raise ValueError
    offset = parse_interval(match[1])
    return interval_zone_name(value, offset.months, offset.days, offset.micros)


def _date_style(value: str) -> str:
    style, order = "ISO", "MDY"
    for part in (p.strip().upper() for p in value.split(",")):
        if part == "ISO":
            style = "ISO"
        elif part in ("MDY", "US", "NONEURO", "NONEUROPEAN"):
            order = "MDY"
        elif part in ("DMY", "EURO", "EUROPEAN"):
            order = "DMY"
        elif part == "YMD":
            order = "YMD"
        else:
            raise ValueError
    return f"{style}, {order}"


def _encoding(value: str) -> str:
    # Only letters and digits count, as in PostgreSQL: asyncpg sends the name in quotes.
    if "".join(filter(str.isalnum, value.upper())) not in ("UTF8", "UNICODE"):
        raise ValueError
    return "UTF8"


def _past(value: str) -> str:
    text = value.strip()
    if text.startswith("-"):
        try:
            span = parse_interval(text)
        except QueryError as error:
            raise ValueError(text) from error
        if timestamp_pl_interval(0, span) >= 0:
            raise ValueError(text)
    elif text and not re.match(r"\d{4,}-\d", text):
        raise ValueError(text)  # 'now' and its kin mean something else each time
    return text


COMMIT_KEY_LENGTH_MAX = 255


def _commit_key(value: str) -> str:
    if len(value) > COMMIT_KEY_LENGTH_MAX or not value.isprintable():
        raise ValueError
    return value


_ISOLATION = _one_of("read committed", "repeatable read", "serializable", "read uncommitted")

_TABLE = [
    Parameter("application_name", "", _any, reported=True),
    Parameter("bytea_output", "hex", _one_of("hex", "escape")),
    Parameter("check_function_bodies", "on", _boolean),
    Parameter("client_encoding", "UTF8", _encoding, reported=True),
    Parameter("client_min_messages", "notice", _one_of(
        "debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "notice", "warning", "error")),
    Parameter("DateStyle", "ISO, MDY", _date_style, reported=True),
    Parameter("deadlock_timeout", "1s", _milliseconds),
    Parameter("default_table_access_method", "heap", _one_of("heap")),
    Parameter("default_tablespace", "", _any),
    Parameter("default_transaction_deferrable", "off", _boolean),
    Parameter("default_transaction_isolation", "read committed", _ISOLATION),
    Parameter("default_transaction_read_only", "off", _boolean, reported=True),
    Parameter("default_with_oids", "off", _one_of("off")),
    Parameter("escape_string_warning", "on", _boolean),
    Parameter("extra_float_digits", "1", _integer(-15, 3)),
    Parameter("hot_standby", "on", _boolean, read_only=True),
    Parameter("idle_in_transaction_session_timeout", "0", _milliseconds),
    Parameter("idle_session_timeout", "0", _milliseconds),
    Parameter("in_hot_standby", "off", _boolean, reported=True, read_only=True),
    Parameter("integer_datetimes", "on", _boolean, reported=True, read_only=True),
    Parameter("IntervalStyle", "postgres", _one_of("postgres"), reported=True),
    Parameter("is_superuser", "on", _boolean, reported=True, read_only=True),
    Parameter("lc_collate", "C", _any, read_only=True),
    Parameter("lc_ctype", "C", _any, read_only=True),
    Parameter("lc_messages", "C", _one_of("c")),
    Parameter("lc_monetary", "C", _one_of("c")),
    Parameter("lc_numeric", "C", _one_of("c")),
    Parameter("lc_time", "C", _one_of("c")),
    Parameter("lock_timeout", "0", _milliseconds),
    Parameter("log_level", "info", _one_of("debug", "info", "warning", "error")),
    Parameter("maintenance_work_mem", "64MB", _any),
    Parameter("max_connections", "100", _any, read_only=True),
    Parameter("max_identifier_length", "63", _any, read_only=True),
    Parameter("max_index_keys", "32", _any, read_only=True),
    Parameter("password_encryption", "scram-sha-256", _one_of("scram-sha-256")),
    Parameter("quote_all_identifiers", "off", _one_of("off")),
    Parameter("row_security", "on", _boolean),
    Parameter("search_path", '"$user", public', _any),
    Parameter("server_encoding", "UTF8", _any, reported=True, read_only=True),
    Parameter("server_version", "15.0 (ShardForge)", _any, reported=True, read_only=True),
    Parameter("server_version_num", "150000", _any, read_only=True),
    Parameter("session_authorization", "shardforge", _any, reported=True, read_only=True),
    Parameter("shardforge.as_of_system_time", "", _past),
    Parameter("shardforge.commit_key", "", _commit_key),
    Parameter("shardforge.consistency_level", "strong", _one_of("strong", "bounded", "eventual")),
    Parameter("shared_buffers", "128MB", _any, read_only=True),
    Parameter("ssl", "off", _boolean, read_only=True),
    Parameter("standard_conforming_strings", "on", _one_of("on"), reported=True),
    Parameter("statement_timeout", "0", _milliseconds),
    Parameter("synchronize_seqscans", "on", _boolean),
    Parameter("synchronous_commit", "on", _one_of("on", "local", "remote_write", "remote_apply")),
    Parameter("TimeZone", "UTC", _time_zone, reported=True),
    Parameter("transaction_deferrable", "off", _boolean),
    Parameter("transaction_isolation", "read committed", _ISOLATION),
    Parameter("transaction_read_only", "off", _boolean),
    Parameter("wal_level", "replica", _any, read_only=True),
    Parameter("work_mem", "4MB", _any),
    Parameter("xmloption", "content", _one_of("content", "document")),
]  # fmt: skip

_PLANNER_HINTS = (
    "enable_async_append", "enable_bitmapscan", "enable_gathermerge", "enable_hashagg",
    "enable_hashjoin", "enable_incremental_sort", "enable_indexonlyscan", "enable_indexscan",
    "enable_material", "enable_memoize", "enable_mergejoin", "enable_nestloop",
    "enable_parallel_append", "enable_parallel_hash", "enable_partition_pruning", "enable_seqscan",
    "enable_sort", "enable_tidscan", "geqo", "jit", "parallel_leader_participation",
)  # fmt: skip
_PLANNER_NUMBERS = {
    "constraint_exclusion": "partition", "cpu_index_tuple_cost": "0.005", "cpu_operator_cost": "0.0025",
    "cpu_tuple_cost": "0.01", "effective_cache_size": "4GB", "from_collapse_limit": "8", "gin_fuzzy_search_limit": "0",
    "join_collapse_limit": "8", "max_parallel_workers": "0", "max_parallel_workers_per_gather": "0",
    "plan_cache_mode": "auto", "random_page_cost": "4", "seq_page_cost": "1", "temp_buffers": "8MB",
    "vacuum_cost_delay": "0", "commit_delay": "0", "temp_tablespaces": "", "debug_print_plan": "off",
}  # fmt: skip

PARAMETERS: dict[str, Parameter] = {p.name.lower(): p for p in _TABLE}
PARAMETERS.update({name: Parameter(name, "on", _boolean) for name in _PLANNER_HINTS})
PARAMETERS.update(
    {name: Parameter(name, default, _any) for name, default in _PLANNER_NUMBERS.items()}
)

REPORTED = tuple(sorted((p for p in PARAMETERS.values() if p.reported), key=lambda p: p.name))


def parameter(name: str) -> Parameter:
    """The parameter called `name` in any case; 42704 when there is none."""
    found = PARAMETERS.get(name.lower())
    if found is None:
        raise QueryError(f'unrecognized configuration parameter "{name}"', "42704")
    return found


def normalized(name: str, value: str) -> str:
    """`value` as it is kept for parameter `name`; 22023 when it cannot be, 55P02 when it is read only."""
    found = parameter(name)
    if found.read_only:
        raise QueryError(f'parameter "{found.name}" cannot be changed', "55P02")
    try:
        return found.normalize(value)
    except ValueError:
        raise QueryError(
            f'invalid value for parameter "{found.name}": "{value}"', "22023"
        ) from None
