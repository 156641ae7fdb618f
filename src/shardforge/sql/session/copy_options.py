"""The options of COPY: what may be said together, and what a CopyFormat results. PURE.

Source: PostgreSQL 15, ProcessCopyOptions in src/backend/commands/copy.c; its checks, in its order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql.session.copy_format import CopyFormat

Node = dict[str, Any]

_KNOWN = frozenset(
    ("format", "freeze", "delimiter", "null", "header", "quote", "escape", "force_quote", "force_not_null",
     "force_null", "encoding")
)  # fmt: skip
_TRUE, _FALSE = ("true", "on", "1"), ("false", "off", "0")
_NO_DELIMITERS = "\\.abcdefghijklmnopqrstuvwxyz0123456789"


def column_list(attributes: list[Node]) -> list[str]:
    """The names of a list of String nodes."""
    return [item["String"]["sval"] for item in attributes]


def copy_format(node: Node) -> CopyFormat:
    """The format that the options of a CopyStmt ask for; `with_columns` adds those about single columns."""
    given = _given(node)
    form = _text(given, "format", "text")
    if form not in ("text", "csv", "binary"):
        raise QueryError(f'COPY format "{form}" not recognized', "22023")
    for name in given:
        if name not in _KNOWN:
            raise QueryError(f'option "{name}" not recognized', "42601")
    encoding = _text(given, "encoding", "utf8").lower().replace("-", "").replace("_", "")
    if encoding not in ("utf8", "unicode"):
        raise unsupported(f'COPY in encoding "{encoding}"')
    header = _header(given, is_from=bool(node.get("is_from")))
    if form == "binary":
        _check_binary(given, header)
        return CopyFormat(binary=True)
    csv = form == "csv"
    made = CopyFormat(
        csv=csv,
        delimiter=_text(given, "delimiter", "," if csv else "\t"),
        null=_text(given, "null", "" if csv else "\\N"),
        header=header != "false",
        header_match=header == "match",
        quote=_text(given, "quote", '"'),
        escape=_text(given, "escape", _text(given, "quote", '"')),
    )
    _check(made, given, is_from=bool(node.get("is_from")))
    return made


def _given(node: Node) -> dict[str, Node]:
    given: dict[str, Node] = {}
    for item in node.get("options", []):
        element = item["DefElem"]
        if element["defname"] in given:
            raise QueryError(
                "conflicting or redundant options",
                "42601",
                position=element.get("location", -1) + 1,
            )
        given[element["defname"]] = element.get("arg", {"String": {"sval": "true"}})
    return given


def _text(given: Mapping[str, Node], name: str, default: str) -> str:
    arg = given.get(name)
    if arg is None:
        return default
    kind, value = next(iter(arg.items()))
    if kind == "Integer":
        return str(value.get("ival", 0))
    if kind == "Float":
        return str(value["fval"])
    if kind == "Boolean":
        return "true" if value.get("boolval") else "false"
    return str(value.get("sval", ""))


def _header(given: Mapping[str, Node], *, is_from: bool) -> str:
    text = _text(given, "header", "false").lower()
    if text in _TRUE:
        return "true"
    if text in _FALSE:
        return "false"
    if text != "match":
        raise QueryError('header requires a Boolean value or "match"', "42601")
    if not is_from:
        raise QueryError('cannot use "match" with HEADER in COPY TO', "0A000")
    return text


def _check_binary(given: Mapping[str, Node], header: str) -> None:
    for name in ("delimiter", "null"):
        if name in given:
            raise QueryError(f"cannot specify {name.upper()} in BINARY mode", "42601")
    if header != "false":
        raise QueryError("cannot specify HEADER in BINARY mode", "0A000")
    for name in ("quote", "escape", "force_quote", "force_not_null", "force_null"):
        if name in given:
            raise QueryError(f"COPY {name.replace('_', ' ')} available only in CSV mode", "0A000")


def _check(form: CopyFormat, given: Mapping[str, Node], *, is_from: bool) -> None:
    if len(form.delimiter.encode()) != 1:
        raise QueryError("COPY delimiter must be a single one-byte character", "0A000")
    if form.delimiter in "\r\n":
        raise QueryError("COPY delimiter cannot be newline or carriage return", "22023")
    if "\r" in form.null or "\n" in form.null:
        raise QueryError("COPY null representation cannot use newline or carriage return", "22023")
    if not form.csv and form.delimiter in _NO_DELIMITERS:
        raise QueryError(f'COPY delimiter cannot be "{form.delimiter}"', "22023")
    if not form.csv and "quote" in given:
        raise QueryError("COPY quote available only in CSV mode", "0A000")
    if form.csv and len(form.quote.encode()) != 1:
        raise QueryError("COPY quote must be a single one-byte character", "0A000")
    if form.csv and form.delimiter == form.quote:
        raise QueryError("COPY delimiter and quote must be different", "22023")
    if not form.csv and "escape" in given:
        raise QueryError("COPY escape available only in CSV mode", "0A000")
    if form.csv and len(form.escape.encode()) != 1:
        raise QueryError("COPY escape must be a single one-byte character", "0A000")
    for name, direction in (
        ("force_quote", "TO"),
        ("force_not_null", "FROM"),
        ("force_null", "FROM"),
    ):
        words = name.replace("_", " ")
        if name in given and not form.csv:
            raise QueryError(f"COPY {words} available only in CSV mode", "0A000")
        if name in given and (direction == "FROM") != is_from:
            raise QueryError(f"COPY {words} only available using COPY {direction}", "0A000")
    if form.delimiter in form.null:
        raise QueryError("COPY delimiter must not appear in the NULL specification", "0A000")
    if form.csv and form.quote in form.null:
        raise QueryError("CSV quote character must not appear in the NULL specification", "0A000")


def with_columns(
    form: CopyFormat, node: Node, names: Sequence[str], relation: str, known: Collection[str]
) -> CopyFormat:
    """`form` with its options about columns: `names` are copied, `known` are all of `relation` ("" for a query)."""
    if not form.csv:
        return form
    given = _given(node)

    def columns(option: str) -> frozenset[int]:
        chosen = column_list(given.get(option, {}).get("List", {}).get("items", []))
        for column in chosen:
            if column not in known:
                owner = f' of relation "{relation}"' if relation else ""
                raise QueryError(f'column "{column}"{owner} does not exist', "42703")
            if column not in names:
                words = option.upper()
                raise QueryError(f'{words} column "{column}" not referenced by COPY', "42P10")
        return frozenset(names.index(column) for column in chosen)

    every = "A_Star" in given.get("force_quote", {})
    return replace(
        form,
        force_quote=None if every else columns("force_quote"),
        force_not_null=columns("force_not_null"),
        force_null=columns("force_null"),
    )
