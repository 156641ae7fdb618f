"""COPY in both directions, and CREATE TABLE AS: rows moved in bulk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shardforge.errors import QueryError, TransactionError, unsupported
from shardforge.sql.ddl import create_table_for_query
from shardforge.sql.execute import ExecContext, Executable
from shardforge.sql.session.copy_format import CopyFormat, Field, RecordReader, line_writer
from shardforge.sql.session.outcome import Outcome, Row
from shardforge.sql.types.registry import input_function, output_function

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session
    from shardforge.sql.session.statements import Prepared

Node = dict[str, Any]
BATCH_ROWS = 2000
PIECE_BYTES = 64 * 1024


def _column_list(attributes: list[Node]) -> list[str]:
    return [item["String"]["sval"] for item in attributes]


def copy_format(node: Node, names: Sequence[str]) -> CopyFormat:
    """The format that the options of a CopyStmt ask for, over columns `names`; 0A000 for binary."""
    given: dict[str, Any] = {}
    for item in node.get("options", []):
        element = item["DefElem"]
        given[element["defname"]] = element.get("arg", {"String": {"sval": "true"}})

    def text(name: str, default: str) -> str:
        arg = given.get(name)
        if arg is None:
            return default
        value = next(iter(arg.values()))
        return str(value.get("sval", value.get("boolval", value.get("ival", ""))))

    form = text("format", "text")
    if form not in ("text", "csv"):
        raise unsupported(f'COPY format "{form}"')
    unknown = set(given) - {"format", "delimiter", "null", "header", "quote", "escape", "force_quote", "force_null",
                            "force_not_null", "encoding", "freeze"}  # fmt: skip
    if unknown:
        raise QueryError(f'option "{unknown.pop()}" not recognized', "42601")
    csv = form == "csv"
    if not csv and given.keys() & {
        "quote",
        "escape",
        "force_quote",
        "force_null",
        "force_not_null",
    }:
        raise unsupported("COPY quoting options outside CSV mode")
    if text("encoding", "utf8").lower().replace("-", "") not in ("utf8", "utf_8"):
        raise unsupported("COPY in an encoding other than UTF8")
    delimiter = text("delimiter", "," if csv else "\t")
    if len(delimiter.encode()) != 1:
        raise unsupported("COPY delimiter must be a single one-byte character: anything else")

    def columns(name: str) -> frozenset[int]:
        items = given.get(name, {}).get("List", {}).get("items", [])
        chosen = _column_list(items)
        for column in chosen:
            if column not in names:
                raise QueryError(
                    f'{name.upper()} column "{column}" not referenced by COPY', "42P10"
                )
        return frozenset(names.index(column) for column in chosen)

    quote = text("quote", '"')
    header = text("header", "false").lower()
    return CopyFormat(
        csv=csv, delimiter=delimiter, null=text("null", "" if csv else "\\N"),
        header=header in ("true", "on", "1", "match"),
        header_match=header == "match", quote=quote, escape=text("escape", quote),
        force_quote=None if "A_Star" in given.get("force_quote", {}) else columns("force_quote"),
        force_null=columns("force_null"), force_not_null=columns("force_not_null"),
    )  # fmt: skip


async def run(session: Session, node: Node, prepared: Prepared, params: Sequence[Any]) -> Outcome:
    """COPY table|query TO STDOUT, and COPY table FROM STDIN; files and programs of the server are refused."""
    if node.get("filename") or node.get("is_program"):
        raise unsupported(
            "COPY with a file or program of the server",
            hint="Use STDIN or STDOUT, or psql's \\copy.",
        )
    if node.get("is_from"):
        return _copy_from(session, node, prepared)
    query = node.get("query")
    if query is None:
        relation = node["relation"]
        names = _column_list(node.get("attlist", []))
        fields: list[Node] = [{"String": {"sval": name}} for name in names] or [{"A_Star": {}}]
        targets = [{"ResTarget": {"val": {"ColumnRef": {"fields": [field]}}}} for field in fields]
        query = {
            "SelectStmt": {
                "targetList": targets,
                "fromClause": [{"RangeVar": relation}],
                "op": "SETOP_NONE",
            }
        }
    inner = session.prepare_parsed(replace(prepared.statement, node=query))
    outcome = await session.run(inner, params)
    assert inner.columns is not None, "COPY takes statements with rows"
    form = copy_format(node, [column.name for column in inner.columns])
    outputs = [output_function(column.type, session.settings) for column in inner.columns]
    return Outcome(
        copy_out=_TextOut(session, outcome, [c.name for c in inner.columns], outputs, form)
    )


class _TextOut:
    """COPY TO STDOUT."""

    binary = False

    def __init__(
        self,
        session: Session,
        outcome: Outcome,
        names: list[str],
        outputs: list[Callable[[Any], str]],
        form: CopyFormat,
    ) -> None:
        self.columns = len(names)
        self._session = session
        self._outcome = outcome
        self._names = names
        self._outputs = outputs
        self._form = form
        self._count = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """Lines, joined into pieces of a convenient size."""
        write, outputs = line_writer(self._form), self._outputs
        if self._form.header:
            yield write(self._names).encode()
        async for rows in self._batches():
            self._count += len(rows)
            lines = [
                write([None if v is None else out(v) for v, out in zip(row, outputs, strict=True)])
                for row in rows
            ]
            yield "".join(lines).encode()

    async def _batches(self) -> AsyncIterator[list[Row]]:
        if self._outcome.batches is None:
            yield self._outcome.rows or []
            return
        async for rows in self._outcome.batches:
            yield rows

    def tag(self) -> str:
        """COPY and the number of rows."""
        return f"COPY {self._count}"


def _copy_from(session: Session, node: Node, prepared: Prepared) -> Outcome:
    if session.settings.show("transaction_read_only") == "on":
        raise TransactionError("cannot execute COPY FROM in a read-only transaction", "25006")
    if node.get("whereClause"):
        raise unsupported("COPY FROM with WHERE")
    relation = node["relation"]
    table = session.catalog.table(
        relation.get("schemaname"), relation["relname"], session.search_path
    )
    names = _column_list(node.get("attlist", [])) or [
        c.name for c in table.columns if not (c.dropped or c.hidden or c.generated)
    ]
    by_name = {column.name: column for column in table.columns if not column.dropped}
    for name in names:
        if name not in by_name:
            raise QueryError(f'column "{name}" of relation "{table.name}" does not exist', "42703")
    parameters = [{"ParamRef": {"number": number + 1}} for number in range(len(names))]
    insert = {
        "relation": relation, "override": "OVERRIDING_SYSTEM_VALUE",
        "cols": [{"ResTarget": {"name": name}} for name in names],
        "selectStmt": {"SelectStmt": {"valuesLists": [{"List": {"items": parameters}}], "op": "SETOP_NONE"}},
    }  # fmt: skip
    types = [by_name[name].type_oid for name in names]
    inner = session.prepare_parsed(replace(prepared.statement, node={"InsertStmt": insert}), types)
    assert inner.executable is not None, "an INSERT is planned"
    context = session.context()
    context.transaction = session.transaction()
    context.transaction.begin_statement()
    form = copy_format(node, names)
    inputs = [input_function(type_oid, session.settings) for type_oid in types]
    return Outcome(copy_in=_TextIn(context, inner.executable, table.name, names, inputs, form))


class _TextIn:
    """COPY FROM STDIN: records are collected and inserted in batches."""

    binary = False

    def __init__(
        self, context: ExecContext, executable: Executable, table: str, names: list[str],
        inputs: list[Callable[[str], Any]], form: CopyFormat,
    ) -> None:  # fmt: skip
        self.columns = len(names)
        self._context = context
        self._executable = executable
        self._table = table
        self._names = names
        self._inputs = inputs
        self._form = form
        self._reader = RecordReader(form)
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

    async def _take(self, records: list[list[Field]]) -> None:
        if self._header_due and records:
            self._header_due = False
            self._line += 1
            header = records.pop(0)
            if self._form.header_match and header != self._names:
                raise QueryError("column name mismatch in header line", "22P04")
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
        if len(self._pending) >= BATCH_ROWS:
            await self._flush()

    def _wrong_width(self, fields: list[Field]) -> QueryError:
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
    if "SelectStmt" in prepared.node:
        select = dict(node)
        into = select.pop("intoClause")
        query: Node = {"SelectStmt": select}
    else:
        into, query = node["into"], node["query"]
        if node.get("objtype") == "OBJECT_MATVIEW":
            raise unsupported("CREATE MATERIALIZED VIEW")
    inner = session.prepare_parsed(replace(prepared.statement, node=query))
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
        filled = await session.run(
            session.prepare_parsed(replace(prepared.statement, node={"InsertStmt": insert})), params
        )
        count = int(filled.tag.rsplit(" ", 1)[1])
    return Outcome(f"SELECT {count}")
