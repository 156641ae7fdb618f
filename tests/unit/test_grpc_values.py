"""Values and errors over gRPC, without a server: what is sent is what is read."""

from __future__ import annotations

import base64
import datetime as dt
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.rpc import code_pb2

from shardforge.client.calls import Target
from shardforge.client.values import reader_of, value_of
from shardforge.config import SecurityConfig
from shardforge.errors import (
    ConsensusError,
    DatabaseError,
    NetworkError,
    QueryError,
    StorageError,
    TransactionError,
)
from shardforge.server.grpc.access import Client, Credentials, check_tls, credentials_in
from shardforge.server.grpc.values import Budget, parameters_of
from shardforge.sql.types import oids
from shardforge.sql.types.integers import regtype_named
from shardforge.v1 import database_pb2 as pb
from shardforge.v1.details import code_of, details_of, error_of

LOCAL = Client("127.0.0.1", 1, False, "127.0.0.1")


@pytest.mark.parametrize(
    ("given", "type_oid", "raw", "form"),
    [
        (None, 0, None, 0),
        (True, oids.BOOL, b"t", 0),
        (5, oids.INT4, b"5", 0),
        (-(1 << 31), oids.INT4, b"-2147483648", 0),
        (1 << 31, oids.INT8, b"2147483648", 0),
        (1 << 70, oids.NUMERIC, b"1180591620717411303424", 0),
        (0.5, oids.FLOAT8, b"\x3f\xe0\0\0\0\0\0\0", 1),
        ("a\u00e9", 0, b"a\xc3\xa9", 0),
        (b"\0\xff", oids.BYTEA, b"\0\xff", 1),
        (Decimal("1.50"), oids.NUMERIC, b"1.50", 0),
        (dt.date(2024, 2, 29), oids.DATE, b"2024-02-29", 0),
        (dt.timedelta(days=-1, microseconds=5), oids.INTERVAL, b"-1 days 0.000005 seconds", 0),
        (UUID(int=1), oids.UUID, b"00000000-0000-0000-0000-000000000001", 0),
        ([1, None, [2.5]], 0, b"{1,NULL,{2.5}}", 0),
        (['a"b', "c\\d"], 0, b'{"a\\"b","c\\\\d"}', 0),
    ],
)
def test_a_parameter_is_sent_as_its_type(
    given: object, type_oid: int, raw: bytes | None, form: int
) -> None:
    found = parameters_of([value_of(given)], regtype_named)
    assert found.types == ((type_oid,) if type_oid else ())
    assert (found.values, found.formats) == ([raw], (form,))


def test_a_value_that_is_no_parameter_is_refused() -> None:
    with pytest.raises(QueryError, match="cannot be of Python's type object"):
        value_of(object())


def test_a_typed_value_names_its_type() -> None:
    typed = pb.Value(typed_value=pb.TypedValue(type="nosuch", text="1"))
    with pytest.raises(QueryError, match='type "nosuch" does not exist'):
        parameters_of([typed], regtype_named)
    with pytest.raises(QueryError, match="needs the name of its type"):
        parameters_of([pb.Value(typed_value=pb.TypedValue(text="1"))], regtype_named)


@pytest.mark.parametrize(
    ("type_oid", "text", "expected"),
    [
        (oids.NUMERIC, "1.50", Decimal("1.50")),
        (oids.TIMESTAMPTZ, "2024-01-02 03:04:05.25+00", dt.datetime(2024, 1, 2, 3, 4, 5, 250000, dt.UTC)),
        (oids.TIMESTAMP, "infinity", "infinity"),
        (oids.DATE, "0044-03-15 BC", "0044-03-15 BC"),
        (3802, '{"a": [1]}', {"a": [1]}),
        (1007, "{1,NULL,-3}", [1, None, -3]),
        (1007, "{{1,2},{3,4}}", [[1, 2], [3, 4]]),
        (1007, "[0:1]={1,2}", "[0:1]={1,2}"),
        (1009, '{a,"b,c","d\\"e","NULL",""}', ["a", "b,c", 'd"e', "NULL", ""]),
        (1000, "{t,f}", [True, False]),
        (1001, '{"\\\\x00ff"}', [b"\x00\xff"]),
    ],
)  # fmt: skip
def test_a_text_form_is_read(type_oid: int, text: str, expected: Any) -> None:
    read = reader_of(type_oid)
    assert read is not None
    assert read(text) == expected


@pytest.mark.parametrize(
    "error",
    [
        ConsensusError("no leader"),
        StorageError("torn", "XX001"),
        QueryError("no", "42601", detail="d", hint="h", position=7),
        QueryError("dup", "23505", schema="s", table="t", column="c", datatype="y", constraint="k"),
        NetworkError("lost", "08006"),
        TransactionError("again", "40001"),
        DatabaseError("oops"),
    ],
)
def test_an_error_arrives_as_it_was(error: DatabaseError) -> None:
    found = error_of(details_of(error, 3))
    assert found is not None
    assert (type(found), vars(found), str(found)) == (type(error), vars(error), str(error))


def test_details_of_others_are_none_of_ours() -> None:
    assert error_of(b"") is None
    assert error_of(b"\xff\xff\xff") is None


@pytest.mark.parametrize(
    ("sqlstate", "code"),
    [
        ("42601", "INVALID_ARGUMENT"), ("42P01", "NOT_FOUND"), ("23505", "ALREADY_EXISTS"), ("40001", "ABORTED"),
        ("40P01", "ABORTED"), ("40003", "UNKNOWN"), ("08007", "UNKNOWN"), ("57P03", "UNAVAILABLE"),
        ("53300", "RESOURCE_EXHAUSTED"), ("28P01", "UNAUTHENTICATED"), ("42501", "PERMISSION_DENIED"),
        ("0A000", "UNIMPLEMENTED"), ("25006", "FAILED_PRECONDITION"), ("XX001", "DATA_LOSS"), ("XX000", "INTERNAL"),
        ("P0001", "FAILED_PRECONDITION"), ("57014", "CANCELLED"),
    ],
)  # fmt: skip
def test_sqlstates_have_status_codes(sqlstate: str, code: str) -> None:
    assert code_pb2.Code.Name(code_of(sqlstate)) == code
    assert getattr(grpc.StatusCode, code).value[0] == code_of(sqlstate)


def basic(text: str) -> tuple[tuple[str, str | bytes], ...]:
    return (("authorization", "Basic " + base64.b64encode(text.encode()).decode()),)


def test_credentials_are_basic() -> None:
    assert credentials_in(()) == Credentials("shardforge", None)
    assert credentials_in(basic("ann")) == Credentials("ann", None)
    assert credentials_in(basic("ann:p:w")) == Credentials("ann", "p:w")
    assert credentials_in((("authorization", "bAsIc YW5uOg=="),)) == Credentials("ann", "")


@pytest.mark.parametrize("value", ["Bearer x", "Basic ???", "Basic", "Basic /w==", "Basic OnB3"])
def test_other_credentials_are_refused(value: str) -> None:
    with pytest.raises(NetworkError, match="invalid authorization metadata"):
        credentials_in((("authorization", value),))


def test_tls_is_required_where_it_is() -> None:
    check_tls(SecurityConfig(), LOCAL)
    required = SecurityConfig(tls_required=True)
    check_tls(required, LOCAL._replace(tls=True))
    with pytest.raises(NetworkError, match="requires TLS"):
        check_tls(required, LOCAL)


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("db:5432", "db:5432"),
        ("10.0.0.1:1, 10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
    ],
)
def test_addresses_as_grpc_wants_them(address: str, target: str) -> None:
    assert Target(address, "u", None, "", False).grpc_target == target


@pytest.mark.parametrize("address", ["db:1,db:2", "10.0.0.1:1,[::1]:1", "10.0.0.1,10.0.0.2", ","])
def test_several_addresses_are_numbers(address: str) -> None:
    with pytest.raises(NetworkError, match="are not several addresses"):
        assert Target(address, "u", None, "", False).grpc_target


def test_results_have_a_limit() -> None:
    budget = Budget(10)
    budget.spend(10)
    with pytest.raises(QueryError, match="larger than 10 bytes"):
        budget.spend(1)


def test_the_stubs_are_made_from_the_proto(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path=shardforge/v1={root / 'proto'}",
         f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}",
         "shardforge/v1/database.proto"], check=True,
    )  # fmt: skip
    made = sorted((tmp_path / "shardforge" / "v1").iterdir())
    assert len(made) == 3
    for file in made:
        committed = root / "src" / "shardforge" / "v1" / file.name
        assert file.read_bytes() == committed.read_bytes(), f"{file.name}: run `make proto`"


def test_the_service_has_six_calls() -> None:
    service = pb.DESCRIPTOR.services_by_name["DatabaseService"]
    assert service.full_name == "shardforge.v1.DatabaseService"
    assert {method.name for method in service.methods} == {
        "JoinCluster", "LeaveCluster", "ExecuteQuery", "ExecuteTransaction", "GetClusterStatus", "GetMetrics",
    }  # fmt: skip
