"""COPY in both directions, and CREATE TABLE AS: rows moved in bulk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql.catalog.descriptors import Column, Table, View
from shardforge.sql.catalog.descriptors import Sequence as SequenceDescriptor
from shardforge.sql.catalog.snapshot import Relation
from shardforge.sql.ddl import create_table_for_query
from shardforge.sql.execute import ExecContext, Executable
from shardforge.sql.session import changefeed, read_only
from shardforge.sql.session.copy_binary import (
    HEADER,
    TRAILER,
    BinaryField,
    BinaryReader,
    checked,
    tuple_writer,
)
from shardforge.sql.session.copy_format import CopyFormat, Field, RecordReader, line_writer
from shardforge.sql.session.copy_options import column_list, copy_format, with_columns
from shardforge.sql.session.outcome import Outcome, Row
from shardforge.sql.session.statements import carried_query
from shardforge.sql.types.registry import (
    input_function,
    output_function,
    receive_function,
    send_function,
)

if TYPE_CHECKING:
    from shardforge.sql.bind.tree import OutputColumn
    from shardforge.sql.session.prepared import Prepared
    from shardforge.sql.session.session import Session

Node = dict[str, Any]
BATCH_ROWS = 2000
PIECE_BYTES = 64 * 1024


async def run(session: Session, node: Node, prepared: Prepared, params: Sequence[Any]) -> Outcome:
    """COPY table|query TO STDOUT, and COPY table FROM STDIN; files and programs of the server are refused."""
    if node.get("filename") or node.get("is_program"):
        raise unsupported(
            "COPY with a file or program of the server",
            hint="Use STDIN or STDOUT, or psql's \\copy.",
        )
    if node.get("is_from"):
        return await _copy_from(session, node, prepared)
    node, feed = changefeed.take_options(node)
    if feed is not None:
        form = copy_format(node)
        outcome = await changefeed.open_feed(session, node, feed)
        return _copy_out(session, outcome, changefeed.COLUMNS, form)
    form, query, relation, known = _what_to_copy(session, node)
    inner = session.prepare_parsed(replace(prepared.statement, node=query))
    if inner.columns is None:
        into = query.get("SelectStmt", {}).get("intoClause")
        if into is not None:
            raise QueryError("COPY (SELECT INTO) is not supported", "0A000")
        raise QueryError("COPY query must have a RETURNING clause", "0A000")
    names = [column.name for column in inner.columns]
    form = with_columns(form, node, names, relation, known or names)
    outcome = await session.run(inner, params)
    return _copy_out(session, outcome, inner.columns, form)


def _copy_out(
    session: Session, outcome: Outcome, columns: Sequence[OutputColumn], form: CopyFormat
) -> Outcome:
    return Outcome(
        copy_out=(_BinaryOut if form.binary else _TextOut)(session, outcome, columns, form)
    )


def _what_to_copy(session: Session, node: Node) -> tuple[CopyFormat, Node, str, Collection[str]]:
    """The format of a COPY TO, its query, and the relation that it is about with its columns, or "" and nothing."""
    query = node.get("query")
    if query is not None:
        return copy_format(node), query, "", ()
    relation = node["relation"]
    found = session.catalog.relation(
        relation.get("schemaname"), relation["relname"], session.search_path
    )
    names = column_list(node.get("attlist", []))
    known: Collection[str] = ()
    _refuse_others(found, "from", "Try the COPY (SELECT ...) TO variant.")
    form = copy_format(node)
    if isinstance(found, Table):
        names, known = _columns_to_copy(found, names)
    fields: list[Node] = [{"String": {"sval": name}} for name in names] or [{"A_Star": {}}]
    targets = [{"ResTarget": {"val": {"ColumnRef": {"fields": [field]}}}} for field in fields]
    select = {"targetList": targets, "fromClause": [{"RangeVar": relation}], "op": "SETOP_NONE"}
    return form, {"SelectStmt": select}, relation["relname"], known


def _refuse_others(found: Relation | None, direction: str, hint: str) -> None:
    if isinstance(found, View):
        message = f'cannot copy {direction} view "{found.name}"'
        raise QueryError(message, "42809", hint=hint)
    if isinstance(found, SequenceDescriptor):
        raise QueryError(f'cannot copy {direction} sequence "{found.name}"', "42809")


def _columns_to_copy(table: Table, given: list[str]) -> tuple[list[str], dict[str, Column]]:
    """The columns named, or all that are not generated; and all that there are."""
    known = {c.name: c for c in table.columns if not (c.dropped or c.hidden)}
    for number, name in enumerate(given):
        if name not in known:
            raise QueryError(f'column "{name}" of relation "{table.name}" does not exist', "42703")
        if known[name].generated:
            detail = "Generated columns cannot be used in COPY."
            raise QueryError(f'column "{name}" is a generated column', "42P10", detail=detail)
        if name in given[:number]:
            raise QueryError(f'column "{name}" specified more than once', "42701")
    return given or [name for name, c in known.items() if not c.generated], known


class _Out:
    """COPY TO STDOUT: the rows, and how many they were."""

    def __init__(
        self, session: Session, outcome: Outcome, columns: Sequence[OutputColumn], form: CopyFormat
    ) -> None:
        self.columns = len(columns)
        self._settings = session.settings
        self._outcome = outcome
        self._names = [column.name for column in columns]
        self._types = [column.type for column in columns]
        self._form = form
        self._count = 0

    async def _batches(self) -> AsyncIterator[list[Row]]:
        if self._outcome.batches is None:
            rows = self._outcome.rows or []
            self._count += len(rows)
            yield rows
            return
        async for rows in self._outcome.batches:
            self._count += len(rows)
            yield rows

    def tag(self) -> str:
        """COPY and the number of rows."""
        return f"COPY {self._count}"


class _TextOut(_Out):
    """COPY TO STDOUT in text and CSV."""

    binary = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Lines, joined into pieces of a convenient size."""
        write = line_writer(self._form)
        outputs = [output_function(type_oid, self._settings) for type_oid in self._types]
        if self._form.header:
            yield write(self._names).encode()
        async for rows in self._batches():
            lines = [
                write([None if v is None else out(v) for v, out in zip(row, outputs, strict=True)])
                for row in rows
            ]
            yield "".join(lines).encode()


class _BinaryOut(_Out):
    """COPY TO STDOUT in binary: a piece a row, the header before the first, as drivers expect."""

    binary = True

    async def pieces(self) -> AsyncIterator[bytes]:
        """Tuples, and the trailer."""
        write = tuple_writer([send_function(type_oid, self._settings) for type_oid in self._types])
        due = HEADER
        async for rows in self._batches():
            for row in rows:
                yield due + write(row)
                due = b""
        yield due + TRAILER


async def _copy_from(session: Session, node: Node, prepared: Prepared) -> Outcome:
    if session.read_only:
        raise read_only.refusal("COPY FROM", "" if session.past is None else session.past.hint)
    if node.get("whereClause"):
        raise unsupported("COPY FROM with WHERE")
    relation = node["relation"]
    found = session.catalog.relation(
        relation.get("schemaname"), relation["relname"], session.search_path
    )
    _refuse_others(
        found, "to", "To enable copying to a view, provide an INSTEAD OF INSERT trigger."
    )
    table = session.catalog.table(
        relation.get("schemaname"), relation["relname"], session.search_path
    )
    form = copy_format(node)
    names, by_name = _columns_to_copy(table, column_list(node.get("attlist", [])))
    form = with_columns(form, node, names, table.name, by_name)
    parameters = [{"ParamRef": {"number": number + 1}} for number in range(len(names))]
    insert = {
        "relation": relation, "override": "OVERRIDING_SYSTEM_VALUE",
        "cols": [{"ResTarget": {"name": name}} for name in names],
        "selectStmt": {"SelectStmt": {"valuesLists": [{"List": {"items": parameters}}], "op": "SETOP_NONE"}},
    }  # fmt: skip
    types = [by_name[name].type_oid for name in names]
    inner = session.prepare_parsed(replace(prepared.statement, node={"InsertStmt": insert}), types)
    context = session.context()
    context.transaction = session.transaction()
    context.transaction.begin_statement()
    inner = await session.made_ready(inner, context.transaction)
    assert inner.executable is not None, "an INSERT is planned"
    inputs: list[Callable[[Any], Any]]
    if form.binary:
        inputs = [checked(receive_function(type_oid, session.settings)) for type_oid in types]
    else:
        inputs = [input_function(type_oid, session.settings) for type_oid in types]
    return Outcome(copy_in=_In(context, inner.executable, table.name, names, inputs, form))


class _In:
    """COPY FROM STDIN: records are collected and inserted in batches. `inputs` read a field as the format has it."""

    def __init__(
        self, context: ExecContext, executable: Executable, table: str, names: list[str],
        inputs: list[Callable[[Any], Any]], form: CopyFormat,
    ) -> None:  # fmt: skip
        self.columns = len(names)
        self.binary = form.binary
        self._context = context
        self._executable = executable
        self._table = table
        self._names = names
        self._inputs = inputs
        self._form = form
        self._reader: RecordReader | BinaryReader = (
            BinaryReader(len(names)) if form.binary else RecordReader(form)
        )
        self._header_due = form.header
        self._pending: list[tuple[Any, ...]] = []
        self._line = 0
        self._count = 0

    async def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        await self._take(self._reader.feed(data))

    async def finish(self) -> str:
        """Insert what is left."""
        await self._take(self._reader.finish())
        await self._flush()
        return f"COPY {self._count}"

    async def _take(self, records: Sequence[list[Field] | list[BinaryField]]) -> None:
        if self._header_due and records:
            self._header_due = False
            self._line += 1
            header, *records = records
            if self._form.header_match and header != self._names:
                raise QueryError("column name mismatch in header line", "22P04")
        if not self._take_columns(records):
            self._take_rows(records)
        if len(self._pending) >= BATCH_ROWS:
            await self._flush()

    def _take_columns(self, records: Sequence[list[Field] | list[BinaryField]]) -> bool:
        """Read fields column by column; false, and nothing is done, where a row needs a closer look."""
        inputs = self._inputs
        if set(map(len, records)) != {len(inputs)}:
            return False
        try:
            columns = [
                [None if f is None else read(f) for f in column]
                if None in column
                else list(map(read, column))
                for column, read in zip(zip(*records, strict=True), inputs, strict=True)
            ]
        except QueryError:
            return False
        self._pending += zip(*columns, strict=True)
        self._line += len(records)
        return True

    def _take_rows(self, records: Sequence[list[Field] | list[BinaryField]]) -> None:
        """Read fields row by row, for errors to tell which."""
        inputs, width = self._inputs, len(self._inputs)
        add = self._pending.append
        for fields in records:
            self._line += 1
            if len(fields) != width:
                raise self._wrong_width(fields)
            try:
                add(
                    tuple(
                        [
                            None if f is None else read(f)
                            for f, read in zip(fields, inputs, strict=True)
                        ]
                    )
                )
            except QueryError as error:
                error.detail = error.detail or f"COPY {self._table}, line {self._line}"
                raise

    def _wrong_width(self, fields: Sequence[object]) -> QueryError:
        where = f"COPY {self._table}, line {self._line}"
        if len(fields) > len(self._inputs):
            return QueryError("extra data after last expected column", "22P04", detail=where)
        return QueryError(
            f'missing data for column "{self._names[len(fields)]}"', "22P04", detail=where
        )

    async def _flush(self) -> None:
        rows, self._pending = self._pending, []
        if rows:
            await self._executable.insert_rows(self._context, rows)
            self._count += len(rows)


async def create_table_as(
    session: Session, node: Node, prepared: Prepared, params: Sequence[Any]
) -> Outcome:
    """CREATE TABLE AS and SELECT INTO."""
    if session.read_only:
        raise read_only.refusal(read_only.command_name(prepared.node))
    if node.get("objtype") == "OBJECT_MATVIEW":
        raise unsupported(
            "CREATE MATERIALIZED VIEW", hint="Use a view, or a table that CREATE TABLE AS fills."
        )
    into = node.get("intoClause") or node["into"]
    query, types = carried_query(prepared.node), prepared.parameter_types
    assert query is not None, "both have one"
    inner = session.prepare_parsed(replace(prepared.statement, node=query), types)
    if inner.columns is None:
        raise QueryError("the query of CREATE TABLE AS has no result columns", "42601")
    context = session.context()
    context.transaction = session.transaction()
    made = await create_table_for_query(
        into, inner.columns, session.ddl_context(), node.get("if_not_exists", False)
    )
    if not made:
        return Outcome("CREATE TABLE AS")
    count = 0
    if not into.get("skipData"):
        insert = {"relation": into["rel"], "selectStmt": query}
        filling = replace(prepared.statement, node={"InsertStmt": insert})
        filled = await session.run(session.prepare_parsed(filling, types), params)
        count = int(filled.tag.rsplit(" ", 1)[1])
    return Outcome(f"SELECT {count}")
