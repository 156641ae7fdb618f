"""Statements that are not queries: transaction control, SET and SHOW, PREPARE, cursors, EXPLAIN, COPY; the rest is DDL.

One table says which function carries out which parse node; what is in no table goes to `sql.ddl`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from shardforge.errors import QueryError, TransactionError, unsupported
from shardforge.sql.bind.tree import ColumnId, OutputColumn
from shardforge.sql.ddl import execute_ddl
from shardforge.sql.session import (
    channels,
    commit_key,
    concurrently,
    copying,
    explain,
    prepared_sql,
    read_only,
    set_constraints,
    shard_view,
)
from shardforge.sql.session.ddl_context import begin_ddl
from shardforge.sql.session.outcome import Outcome
from shardforge.sql.session.parameters import parameter
from shardforge.sql.session.settings import COMMIT_KEY
from shardforge.sql.types.interval_text import (
    FULL_RANGE,
    apply_interval_typmod,
    format_interval,
    interval_typmod_in,
    parse_interval,
)

if TYPE_CHECKING:
    from shardforge.sql.session.prepared import Prepared
    from shardforge.sql.session.session import Session

Node = dict[str, Any]
Run = Callable[["Session", Node, "Prepared", Sequence[Any]], Awaitable[Outcome]]

TEXT = 25
_BEGIN_TAGS = {"TRANS_STMT_BEGIN": "BEGIN", "TRANS_STMT_START": "START TRANSACTION"}
_TRANSACTION_ENDS = {
    "TRANS_STMT_COMMIT",
    "TRANS_STMT_ROLLBACK",
    "TRANS_STMT_ROLLBACK_TO",
    "TRANS_STMT_PREPARE",
}


def text_columns(*names: str) -> tuple[OutputColumn, ...]:
    """Result columns of type text."""
    return tuple(
        OutputColumn(ColumnId(-1 - offset), name, TEXT) for offset, name in enumerate(names)
    )


def allowed_in_failed_block(node: Node) -> bool:
    """Whether the statement ends a failed block (or brings it back)."""
    transaction = node.get("TransactionStmt")
    return transaction is not None and transaction["kind"] in _TRANSACTION_ENDS


def result_columns(node: Node, session: Session) -> tuple[OutputColumn, ...] | None:
    """The result columns of a utility statement, known before it runs; None for one without rows."""
    match node:
        case {"VariableShowStmt": {"name": "all"}}:
            return text_columns("name", "setting", "description")
        case {"VariableShowStmt": {"name": shard_view.NAME}}:
            return shard_view.columns()
        case {"VariableShowStmt": {"name": name}}:
            return text_columns(name if "." in name else parameter(name).name)
        case {"ExplainStmt": _}:
            return text_columns("QUERY PLAN")
        case {"FetchStmt": {"portalname": name, **rest}}:
            cursor = session.cursors.get(name)
            return cursor.columns if cursor is not None and not rest.get("ismove") else None
        case {"ExecuteStmt": {"name": name}}:
            return session.refreshed(prepared_sql.find(session, name)).columns
    return None


def run(session: Session, prepared: Prepared, params: Sequence[Any]) -> Awaitable[Outcome]:
    """Carry out a utility statement."""
    ((name, node),) = prepared.node.items()
    function = _TABLE.get(name)
    if function is not None:
        return function(session, node, prepared, params)
    return _ddl(session, prepared)


def run_now(session: Session, prepared: Prepared) -> Outcome | None:
    """Carry out a plain BEGIN outside a block; None, and nothing done, for anything else."""
    if prepared.kind != "transactionstmt" or session.in_block:
        return None
    node = prepared.node["TransactionStmt"]
    tag = _BEGIN_TAGS.get(node["kind"])
    if tag is None or "options" in node:
        return None
    session.begin_block()
    return Outcome(tag)


async def _ddl(session: Session, prepared: Prepared) -> Outcome:
    if session.read_only and next(iter(prepared.node)) not in read_only.ALLOWED:
        hint = "" if session.past is None else session.past.hint
        raise read_only.refusal(read_only.command_name(prepared.node), hint)
    index = prepared.node.get("IndexStmt")
    if index is not None and index.get("concurrent"):
        return Outcome(await concurrently.create_index(session, index))
    return Outcome(await execute_ddl(prepared.node, begin_ddl(session)))


# ---------------------------------------------------------------- transactions


def _transaction(
    session: Session, node: Node, prepared: Prepared, params: Sequence[Any]
) -> Awaitable[Outcome]:
    kind = node["kind"]
    if kind in ("TRANS_STMT_COMMIT", "TRANS_STMT_ROLLBACK"):
        return _end(session, node, commit=kind == "TRANS_STMT_COMMIT")
    return _within(session, node, kind)


async def _within(session: Session, node: Node, kind: str) -> Outcome:
    """A statement of transaction control that does not end the transaction."""
    if kind in _BEGIN_TAGS:
        if session.in_block:
            session.notice("WARNING", "25001", "there is already a transaction in progress")
        else:
            session.begin_block()
        _set_modes(session, node.get("options", []), prefix="transaction_")
        return Outcome(_BEGIN_TAGS[kind])
    if kind in ("TRANS_STMT_SAVEPOINT", "TRANS_STMT_RELEASE", "TRANS_STMT_ROLLBACK_TO"):
        word = {"TRANS_STMT_SAVEPOINT": "SAVEPOINT", "TRANS_STMT_RELEASE": "RELEASE SAVEPOINT"}.get(
            kind, "ROLLBACK TO SAVEPOINT"
        )
        if not session.in_block:
            raise TransactionError(f"{word} can only be used in transaction blocks", "25P01")
        savepoints = session.savepoints
        action = {"SAVEPOINT": savepoints.begin, "RELEASE SAVEPOINT": savepoints.release}.get(
            word, savepoints.rollback_to
        )
        action(node["savepoint_name"])
        return Outcome(
            {"SAVEPOINT": "SAVEPOINT", "RELEASE SAVEPOINT": "RELEASE"}.get(word, "ROLLBACK")
        )
    raise unsupported("two-phase commit by the client (PREPARE TRANSACTION)")


async def _end(session: Session, node: Node, *, commit: bool) -> Outcome:
    if not session.in_block:
        session.notice("WARNING", "25P01", "there is no transaction in progress")
    isolation = session.settings.show("transaction_isolation")
    if commit:
        committed = await session.commit()
    else:
        await session.rollback()
        committed = False
    if node.get("chain"):
        session.begin_block()
        session.settings.set("transaction_isolation", isolation, local=True)
    return Outcome("COMMIT" if committed else "ROLLBACK")


def _set_modes(session: Session, options: list[Node], *, prefix: str) -> None:
    for option in options:
        element = option["DefElem"]
        value = _constant(element["arg"])
        name = element["defname"].removeprefix("transaction_")
        if name in ("read_only", "deferrable"):
            value = "on" if value in ("1", "on", "true") else "off"
        if prefix == "transaction_":
            _check_mode(session, name, value)
        session.settings.set(prefix + name, value, local=prefix == "transaction_")


def _check_mode(session: Session, name: str, value: str) -> None:
    """A transaction that has run a query keeps its isolation, and does not become read-write."""
    if session.open_transaction is None or value == session.settings.show(f"transaction_{name}"):
        return
    if name == "isolation":
        words = (
            "must not be called in a subtransaction"
            if session.savepoints
            else "must be called before any query"
        )
        raise TransactionError(f"SET TRANSACTION ISOLATION LEVEL {words}", "25001")
    if name == "read_only" and value == "off":
        raise TransactionError("transaction read-write mode must be set before any query", "25001")


# ---------------------------------------------------------------- settings


def _constant(node: Node) -> str:
    match node:
        case {"A_Const": {"sval": value}}:
            return str(value.get("sval", ""))
        case {"A_Const": {"ival": value}}:
            return str(value.get("ival", 0))
        case {"A_Const": {"fval": value}}:
            return str(value["fval"])
        case {"A_Const": {"boolval": value}}:
            return "on" if value.get("boolval") else "off"
        case {
            "TypeCast": {
                "arg": arg,
                "typeName": {"names": [*_, {"String": {"sval": "interval"}}]} as type_name,
            }
        }:
            return f"INTERVAL '{_interval(_constant(arg), type_name.get('typmods', []))}'"
        case {"TypeCast": {"arg": arg}}:
            return _constant(arg)
        case {"String": {"sval": value}}:
            return str(value)
        case {"Integer": value}:
            return str(value.get("ival", 0))
    raise unsupported("this kind of value in SET")


def _interval(text: str, modifiers: list[Node]) -> str:
    """The interval of SET TIME ZONE INTERVAL, cut to the fields that it names."""
    numbers = [int(_constant(modifier)) for modifier in modifiers]
    typmod = interval_typmod_in(numbers) if numbers else -1
    value = parse_interval(text, numbers[0] & FULL_RANGE) if numbers else parse_interval(text)
    return format_interval(apply_interval_typmod(typmod, value))


_LISTS = {"search_path", "datestyle", "temp_tablespaces"}


def _value_list(name: str, args: list[Node]) -> str:
    values = [_constant(arg) for arg in args]
    if len(values) > 1 and name.lower() not in _LISTS:
        raise QueryError(f"SET {name} takes only one argument", "22023")
    if name.lower() == "search_path":
        return ", ".join(
            v if v.isidentifier() and v == v.lower() else '"' + v.replace('"', '""') + '"'
            for v in values
        )
    return ", ".join(values)


async def _set(session: Session, node: Node, prepared: Prepared, params: Sequence[Any]) -> Outcome:
    kind, name, local = node["kind"], node.get("name", ""), node.get("is_local", False)
    if local and not session.in_block:
        session.notice("WARNING", "25P01", "SET LOCAL can only be used in transaction blocks")
    settings = session.settings
    if kind == "VAR_SET_VALUE":
        if name == "log_level":
            value = _value_list(name, node["args"])
            settings.set(name, value, local=local)
            session.instance.set_log_level(settings.show(name))
        else:
            value = _value_list(name, node["args"])
            if name.lower().startswith("transaction_"):
                _check_mode(session, name.lower().removeprefix("transaction_"), value.lower())
            settings.set(name, value, local=local)
            if name.lower() == COMMIT_KEY:
                await commit_key.announce(session)
    elif kind == "VAR_SET_MULTI" and name == "TRANSACTION":
        if not session.in_block:
            session.notice(
                "WARNING", "25P01", "SET TRANSACTION can only be used in transaction blocks"
            )
        _set_modes(session, node["args"], prefix="transaction_")
    elif kind == "VAR_SET_MULTI" and name == "SESSION CHARACTERISTICS":
        _set_modes(session, node["args"], prefix="default_transaction_")
    elif kind == "VAR_RESET_ALL":
        settings.reset_all()
    elif kind in ("VAR_RESET", "VAR_SET_DEFAULT"):
        settings.reset(name)
    elif kind == "VAR_SET_CURRENT":
        settings.set(name, settings.show(name), local=local)
    else:
        raise unsupported(f"SET {name}")
    if not session.in_block or name.lower().startswith("default_transaction_"):
        session.adopt_transaction_defaults()
    return Outcome("RESET" if kind.startswith("VAR_RESET") else "SET")


async def _show(session: Session, node: Node, prepared: Prepared, params: Sequence[Any]) -> Outcome:
    name = node["name"]
    columns = result_columns({"VariableShowStmt": node}, session)
    if name == shard_view.NAME:
        return Outcome("SHOW", columns, rows=shard_view.rows(session, node.get("relation")))
    if name == "all":
        return Outcome(
            "SHOW", columns, rows=[row for row in session.settings.all() if "." not in row[0]]
        )
    return Outcome("SHOW", columns, rows=[(session.settings.show(name),)])


async def _discard(
    session: Session, node: Node, prepared: Prepared, params: Sequence[Any]
) -> Outcome:
    target = node["target"]
    if target == "DISCARD_ALL":
        if session.in_block:
            raise TransactionError("DISCARD ALL cannot run inside a transaction block", "25001")
        for cursor in session.cursors.values():
            await cursor.close()
        session.cursors.clear()
        session.prepared.clear()
        session.settings.reset_all()
        session.channels.unlisten()
        session.advisory.release_all()
    if target in ("DISCARD_ALL", "DISCARD_TEMP"):
        await drop_temporary(session)
    if target in ("DISCARD_ALL", "DISCARD_SEQUENCES"):
        session.sequences.forget()
    return Outcome(target.replace("_", " "))


async def drop_temporary(session: Session) -> None:
    """Drop the session's temporary tables."""
    tables = [t for t in session.catalog.tables() if t.temporary_session == session.process_id]
    if tables:
        names = ", ".join(f'pg_temp."{table.name}"' for table in tables)
        await session.execute(f"DROP TABLE {names} CASCADE")


async def _refused(
    session: Session, node: Node, prepared: Prepared, params: Sequence[Any]
) -> Outcome:
    raise unsupported(_REFUSED[next(iter(prepared.node))])


_REFUSED = {
    "DoStmt": "DO",
    "CallStmt": "CALL",
    "MergeStmt": "MERGE",
    "LoadStmt": "LOAD",
}

_TABLE: dict[str, Run] = {
    "TransactionStmt": _transaction,
    "VariableSetStmt": _set,
    "VariableShowStmt": _show,
    "ConstraintsSetStmt": set_constraints.run,
    "DiscardStmt": _discard,
    "ListenStmt": channels.listen,
    "UnlistenStmt": channels.unlisten,
    "NotifyStmt": channels.notify,
    "PrepareStmt": prepared_sql.prepare,
    "ExecuteStmt": prepared_sql.execute,
    "DeallocateStmt": prepared_sql.deallocate,
    "DeclareCursorStmt": prepared_sql.declare,
    "FetchStmt": prepared_sql.fetch,
    "ClosePortalStmt": prepared_sql.close,
    "ExplainStmt": explain.run,
    "CopyStmt": copying.run,
    "CreateTableAsStmt": copying.create_table_as,
    "SelectStmt": copying.create_table_as,
    **dict.fromkeys(_REFUSED, _refused),
}


def require_block(session: Session, statement: str) -> None:
    """25P01 outside a transaction block."""
    if not session.in_block:
        raise QueryError(f"{statement} can only be used in transaction blocks", "25P01")
