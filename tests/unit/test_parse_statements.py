"""Scripts to statements: splitting, positions of syntax errors, and text back from trees."""

from __future__ import annotations

import pytest

from shardforge.errors import QueryError
from shardforge.sql.parse import (
    char_position,
    deparse_expression,
    deparse_statement,
    parse,
    parse_expression,
    parse_type_name,
)


def test_one_statement_keeps_its_text() -> None:
    (statement,) = parse("SELECT 1")
    assert statement.text == "SELECT 1"
    assert list(statement.node) == ["SelectStmt"]
    assert statement.offset == 0


def test_script_is_split_with_offsets_in_characters() -> None:
    script = "SELECT 'é' ; INSERT INTO t VALUES ($$;$$);; -- done;\nDELETE FROM t"
    statements = parse(script)
    assert [next(iter(s.node)) for s in statements] == ["SelectStmt", "InsertStmt", "DeleteStmt"]
    assert statements[1].text == "INSERT INTO t VALUES ($$;$$)"
    for statement in statements:
        assert script[statement.offset :].startswith(statement.text)


def test_locations_are_relative_to_the_statement() -> None:
    alone = parse("SELECT a + b")[0].node
    second = parse("SELECT 1;SELECT a + b")[1].node
    assert alone == second


@pytest.mark.parametrize("text", ["", " ;; ", "-- nothing"])
def test_empty_scripts_have_no_statements(text: str) -> None:
    assert parse(text) == []


@pytest.mark.parametrize(
    ("text", "message", "position"),
    [
        ("SELECT 1 +", "syntax error at end of input", 11),
        ("SELECT 1; SELEC 2", 'syntax error at or near "SELEC"', 11),
        ("SELECT 'abc", 'unterminated quoted string at or near "\'abc"', 8),
        ("SELECT 'é', 1 +", "syntax error at end of input", 16),
        ("SELECT 1 FROM WHERE", 'syntax error at or near "WHERE"', 15),
    ],
)
def test_syntax_errors_have_postgresql_words_and_position(
    text: str, message: str, position: int
) -> None:
    with pytest.raises(QueryError) as raised:
        parse(text)
    assert (raised.value.message, raised.value.sqlstate) == (message, "42601")
    assert raised.value.position == position


def test_character_positions_of_byte_offsets() -> None:
    assert char_position("SELECT x", 7) == 8
    assert char_position("SELECT 'é', x", 13) == 13
    assert char_position("SELECT x", -1) == 0


def test_expressions_and_type_names() -> None:
    assert "A_Expr" in parse_expression("a + 1")
    assert parse_type_name("numeric(10,2)[]")["names"][-1] == {"String": {"sval": "numeric"}}
    with pytest.raises(QueryError):
        parse_type_name("numeric(")
    with pytest.raises(QueryError):
        parse_type_name("int, 1")


def test_text_from_trees() -> None:
    (statement,) = parse("create view v as select a, count(*) from t where b>'x' group by 1")
    query = statement.node["ViewStmt"]["query"]
    assert deparse_statement(query) == "SELECT a, count(*) FROM t WHERE b > 'x' GROUP BY 1"
    assert deparse_expression(parse_expression("lower(a)||'x'")) == "lower(a) || 'x'"
