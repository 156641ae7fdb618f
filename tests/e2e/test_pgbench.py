"""pgbench with its own DDL, COPY and vacuum, in every protocol mode; its own consistency holds afterwards."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.e2e.servers import ServerProcess

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("pgbench") is None, reason="pgbench is not installed"),
]


def pgbench(server: ServerProcess, *arguments: str) -> str:
    command = [
        "pgbench",
        "-h",
        "127.0.0.1",
        "-p",
        str(server.port),
        "-U",
        "shardforge",
        *arguments,
        "shardforge",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_pgbench(server: ServerProcess) -> None:
    pgbench(server, "-i", "-q", "-s", "1")
    for mode in ("simple", "extended", "prepared"):
        for workload in (["-S"], ["-N"], []):
            output = pgbench(server, "-n", "-c", "8", "-j", "1", "-t", "20", "-M", mode, *workload)
            assert re.search(r"number of transactions actually processed: 160/160", output), output
            assert "number of failed transactions: 0" in output
    with server.connect() as connection:
        sums = {
            connection.execute(f"SELECT sum({column}) FROM {table}").fetchone()  # type: ignore[arg-type]
            for column, table in (("bbalance", "pgbench_branches"), ("tbalance", "pgbench_tellers"))
        }
        tpcb = connection.execute("SELECT count(*) FROM pgbench_history").fetchone()
        assert len(sums) == 1
        assert tpcb == (960,)
        totals = connection.execute(
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)"
        ).fetchone()
        assert totals == (True,)
