"""SCRAM-SHA-256: an independent client side meets the server's, right and wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient, ScramMechanism

from shardforge.errors import NetworkError
from shardforge.server.pgwire.authentication import ScramExchange, parse_verifier
from shardforge.sql.catalog.descriptors import Role
from shardforge.sql.ddl.roles import scram_verifier


def role(password: str) -> Role:
    return Role(id=1, name="ada", verifier=scram_verifier(password))


def log_in(exchange: ScramExchange, password: str) -> None:
    client = ScramClient([ScramMechanism("SCRAM-SHA-256").name], "ada", password)
    client.set_server_first(exchange.first(client.get_client_first().encode()).decode())
    client.set_server_final(exchange.final(client.get_client_final().encode()).decode())


def test_the_right_password_and_the_server_s_own_proof() -> None:
    log_in(ScramExchange("ada", role("pencil é")), "pencil é")


@pytest.mark.parametrize("known", [True, False])
def test_a_wrong_password_and_an_unknown_role_look_alike(known: bool) -> None:
    with pytest.raises(NetworkError) as caught:
        log_in(ScramExchange("ada", role("right") if known else None), "wrong")
    assert caught.value.sqlstate == "28P01"
    assert caught.value.message == 'password authentication failed for user "ada"'


def test_libpq_sends_no_user_name() -> None:
    answer = ScramExchange("ada", role("x")).first(b"n,,n=,r=abc").decode()
    assert answer.startswith("r=abc")
    assert f",i={parse_verifier(scram_verifier('x')).iterations}" in answer


@given(data=st.binary(max_size=60), step=st.booleans())
def test_other_bytes_are_refused(data: bytes, step: bool) -> None:
    exchange = ScramExchange("ada", role("x"))
    exchange.first(b"n,,n=,r=abc")
    with pytest.raises(NetworkError) as caught:
        (exchange.final if step else exchange.first)(b"\xff" + data)
    assert caught.value.sqlstate == "08P01"
