"""Functions about the session and the server: settings, names, encodings, and what is constant here.

`context.session` is asked for process_id, user, database, query, and instance.interrupt(pid, ...);
`context.settings` for show, get and set. Source: PostgreSQL 15, chapters 9.26 and 9.27 of the manual.
"""

from __future__ import annotations

from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.functions.context import UNIX_EPOCH_TO_2000_US, EvalContext
from shardforge.sql.functions.registry import implements

_ENCODINGS = (
    "SQL_ASCII", "EUC_JP", "EUC_CN", "EUC_KR", "EUC_TW", "EUC_JIS_2004", "UTF8", "MULE_INTERNAL", "LATIN1", "LATIN2",
    "LATIN3", "LATIN4", "LATIN5", "LATIN6", "LATIN7", "LATIN8", "LATIN9", "LATIN10", "WIN1256", "WIN1258", "WIN866",
    "WIN874", "KOI8R", "WIN1251", "WIN1252", "ISO_8859_5", "ISO_8859_6", "ISO_8859_7", "ISO_8859_8", "WIN1250",
    "WIN1253", "WIN1254", "WIN1255", "WIN1257", "KOI8U", "SJIS", "BIG5", "GBK", "UHC", "GB18030", "JOHAB",
    "SHIFT_JIS_2004",
)  # fmt: skip


def _encoding_key(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


_ENCODING_NUMBERS = {_encoding_key(name): number for number, name in enumerate(_ENCODINGS)} | {
    "unicode": 6, "iso88591": 8, "iso88592": 9, "iso885915": 16, "abc": 19, "tcvn": 19, "vscii": 19, "alt": 20,
    "koi8": 22, "win": 23, "windows1250": 29, "windows1251": 23, "windows1252": 24, "shiftjis": 35, "mskanji": 35,
    "windows949": 38, "windows950": 36, "windows936": 37, "windows932": 35,
}  # fmt: skip


@implements("PG_char_to_encoding")
def encoding_number(name: str) -> int:
    """An encoding's number, -1 for an unknown one."""
    return _ENCODING_NUMBERS.get(_encoding_key(name), -1)


@implements("PG_encoding_to_char")
def encoding_name(number: int) -> str:
    """An encoding's name, empty for an unknown one."""
    return _ENCODINGS[number] if 0 <= number < len(_ENCODINGS) else ""


implements("getdatabaseencoding")(lambda: "UTF8")
implements("pg_client_encoding", context=True)(
    lambda context: context.settings.show("client_encoding")
)


# ---------------------------------------------------------------- settings


@implements("show_config_by_name", context=True)
def current_setting(context: Any, name: str) -> str:
    """SHOW as a function."""
    return str(context.settings.show(name))


@implements("show_config_by_name_missing_ok", context=True)
def current_setting_missing_ok(context: Any, name: str, missing_ok: bool) -> str | None:
    """SHOW as a function; NULL for an unknown name when allowed."""
    if missing_ok:
        value = context.settings.get(name)
        return None if value is None else str(value)
    return str(context.settings.show(name))


@implements("set_config_by_name", context=True)
def set_config(context: Any, name: str | None, value: str | None, local: bool | None) -> str:
    """SET as a function; the new value."""
    if name is None:
        raise QueryError("SET requires parameter name", "22004")
    if value is None:
        context.settings.reset(name)
    else:
        context.settings.set(name, value, local=bool(local))
    return str(context.settings.show(name))


@implements("pgsql_version", context=True)
def version(context: Any) -> str:
    """The version that clients read: PostgreSQL's number first."""
    return f"PostgreSQL {context.settings.show('server_version')}"


# ---------------------------------------------------------------- who and where

implements("current_user", "session_user", context=True)(lambda context: context.session.user)
implements("current_database", context=True)(lambda context: context.session.database)
implements("pg_backend_pid", context=True)(lambda context: context.session.process_id)
implements("current_query", context=True)(lambda context: context.session.query)


@implements("current_schema", context=True)
def current_schema(context: EvalContext) -> str | None:
    """The first schema of the search path that exists."""
    schemas = context.catalog.current_schemas(False)
    return schemas[0] if schemas else None


@implements("current_schemas", context=True)
def current_schemas(context: EvalContext, implicit: bool) -> Any:
    """The schemas searched, with pg_catalog when `implicit`."""
    from shardforge.sql.types.values import Array

    return Array(tuple(context.catalog.current_schemas(implicit)))


@implements("pg_cancel_backend", context=True)
def pg_cancel_backend(context: EvalContext, pid: int) -> bool:
    """Cancel another session's statement."""
    return bool(context.session.instance.interrupt(pid, terminate=False))


@implements("pg_terminate_backend", context=True)
def pg_terminate_backend(context: EvalContext, pid: int, timeout_ms: int) -> bool:
    """End another session; waiting for its end is not offered, so a timeout must be 0."""
    if timeout_ms != 0:
        raise QueryError("a timeout for pg_terminate_backend is not supported", "0A000")
    return bool(context.session.instance.interrupt(pid, terminate=True))


@implements("pg_postmaster_start_time", "pg_conf_load_time", context=True)
def pg_postmaster_start_time(context: EvalContext) -> int:
    """When this node started."""
    return int(context.session.instance.started_us) - UNIX_EPOCH_TO_2000_US


# ---------------------------------------------------------------- LISTEN and NOTIFY


@implements("pg_notify", context=True)
def pg_notify(context: EvalContext, channel: str | None, payload: str | None) -> str:
    """NOTIFY as a function. Raises: 22023, 54000."""
    context.session.channels.notify(channel or "", payload or "")
    return ""


@implements("pg_listening_channels", context=True)
def pg_listening_channels(context: EvalContext) -> tuple[str, ...]:
    """What the session listens to."""
    return tuple(context.session.channels.listening)


@implements("pg_notification_queue_usage", context=True)
def pg_notification_queue_usage(context: EvalContext) -> float:
    """How full the fullest inbox is, from 0 to 1."""
    return float(context.session.instance.channels.usage())


# ---------------------------------------------------------------- what is constant here

implements("pg_jit_available")(lambda: False)
implements("pg_is_in_recovery", context=True)(
    lambda context: bool(context.session.instance.reads_past)
)
implements("pg_trigger_depth", "pg_my_temp_schema")(lambda: 0)
implements("pg_is_other_temp_schema", "row_security_active", "row_security_active_name")(
    lambda name: False
)
implements("inet_client_port", "inet_server_port", "inet_client_addr", "inet_server_addr")(
    lambda: None
)
implements("pg_tablespace_location")(lambda oid: "")
