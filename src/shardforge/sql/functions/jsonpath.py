"""jsonb_path_query and its kin, @? and @@.

With `silent`, and always in the operators, errors about the shape of the data give no result. The _tz variants
differ only for dates, whose method is refused, so they are the same here. Source: PostgreSQL 15, table 9.51.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shardforge.errors import QueryError
from shardforge.sql.functions.jsonpath_evaluate import SUPPRESSIBLE, Evaluator
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.jsonpath import JsonPath
from shardforge.sql.types.values import Jsonb, JsonTree


def _evaluator(value: Jsonb, path: JsonPath, variables: Jsonb) -> Evaluator:
    if not isinstance(variables.value, dict):
        raise QueryError(
            '"vars" argument is not an object',
            "22023",
            detail='Jsonpath parameters should be encoded as key-value pairs of "vars" object.',
        )
    return Evaluator(path, value.value, variables.value)


@contextmanager
def _silencing(silent: bool) -> Iterator[None]:
    """Ends quietly at an error about the data's shape, if asked to."""
    try:
        yield
    except QueryError as error:
        if not (silent and error.sqlstate.startswith(SUPPRESSIBLE)):
            raise
    except RecursionError:
        raise QueryError("stack depth limit exceeded", "54001") from None


def _select(value: Jsonb, path: JsonPath, variables: Jsonb, silent: bool) -> list[JsonTree]:
    """The selected sequence, up to the first error if that was silenced."""
    found: list[JsonTree] = []
    evaluator = _evaluator(value, path, variables)
    with _silencing(silent):
        found.extend(evaluator.run())
    return found


@implements("jsonb_path_exists", "jsonb_path_exists_tz")
def path_exists(value: Jsonb, path: JsonPath, variables: Jsonb, silent: bool) -> bool | None:
    """Whether the path selects anything."""
    evaluator = _evaluator(value, path, variables)
    with _silencing(silent):
        return evaluator.any_item(path.root)
    return None


@implements("jsonb_path_exists_opr")
def path_exists_operator(value: Jsonb, path: JsonPath) -> bool | None:
    """value @? path."""
    return path_exists(value, path, Jsonb({}), True)


@implements("jsonb_path_match", "jsonb_path_match_tz")
def path_match(value: Jsonb, path: JsonPath, variables: Jsonb, silent: bool) -> bool | None:
    """The boolean the path's predicate gives."""
    found = _select(value, path, variables, silent)
    if len(found) == 1:
        only = found[0]
        if isinstance(only, bool) or only is None:
            return only
    if silent:
        return None
    raise QueryError("single boolean result is expected", "22038")


@implements("jsonb_path_match_opr")
def path_match_operator(value: Jsonb, path: JsonPath) -> bool | None:
    """value @@ path."""
    return path_match(value, path, Jsonb({}), True)


@implements("jsonb_path_query", "jsonb_path_query_tz")
def path_query(value: Jsonb, path: JsonPath, variables: Jsonb, silent: bool) -> Iterator[Jsonb]:
    """Each selected item."""
    return map(Jsonb, _select(value, path, variables, silent))


@implements("jsonb_path_query_array", "jsonb_path_query_array_tz")
def path_query_array(value: Jsonb, path: JsonPath, variables: Jsonb, silent: bool) -> Jsonb:
    """The selected items as an array."""
    return Jsonb(_select(value, path, variables, silent))


@implements("jsonb_path_query_first", "jsonb_path_query_first_tz")
def path_query_first(value: Jsonb, path: JsonPath, variables: Jsonb, silent: bool) -> Jsonb | None:
    """The first selected item."""
    found = _select(value, path, variables, silent)
    return Jsonb(found[0]) if found else None
