"""Running a node: refusals in one line, stopping, restarting, logs, metrics, passwords, TLS, limits."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shardforge import __version__
from shardforge.telemetry import COMPILED
from tests.e2e.servers import ServerProcess, free_port

pytestmark = pytest.mark.e2e


def command(
    *arguments: str, settings: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shardforge", *arguments], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **(settings or {})},
    )  # fmt: skip


def test_version_and_configuration_commands(tmp_path: Path) -> None:
    assert command("version").stdout.startswith("shardforge 0.")
    shown = command("config", "show", settings={"SHARDFORGE_SQL_MAX_CONNECTIONS": "7"})
    assert "max_connections = 7" in shown.stdout
    assert "Not yet in force" not in shown.stdout
    file = tmp_path / "shardforge.toml"
    file.write_text(shown.stdout, encoding="utf-8")
    assert command("config", "check", str(file)).stdout.strip() == f"{file}: OK"
    file.write_text("[sql]\nmax_conections = 3\n", encoding="utf-8")
    refused = command("config", "check", str(file))
    assert refused.returncode == 2
    assert "unknown key sql.max_conections" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_port_in_use_is_one_line_and_exit_code_2(server: ServerProcess, tmp_path: Path) -> None:
    refused = command(
        "start", "--data-dir", str(tmp_path / "d"), "--bind", f"127.0.0.1:{server.port}"
    )
    assert refused.returncode == 2
    assert f"cannot listen on 127.0.0.1:{server.port}" in refused.stderr


def test_a_locked_data_directory(server: ServerProcess) -> None:
    refused = command("start", "--data-dir", str(server.data), "--bind", f"127.0.0.1:{free_port()}")
    assert refused.returncode == 2
    assert str(server.data) in refused.stderr
    assert "in use" in refused.stderr or "locked" in refused.stderr


def test_a_newer_data_directory_is_refused(fresh: ServerProcess) -> None:
    fresh.start()
    fresh.stop()
    file = fresh.data / "cluster" / "cluster.toml"
    text = file.read_text(encoding="utf-8")
    lines = [
        f"{line.split('=')[0]}= 999" if line.startswith("format") else line
        for line in text.splitlines()
    ]
    assert lines != text.splitlines()
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    refused = command("start", "--data-dir", str(fresh.data), "--bind", f"127.0.0.1:{fresh.port}")
    assert refused.returncode == 2
    assert "999" in refused.stderr


def test_stopping_drains_and_a_restart_finds_everything(fresh: ServerProcess) -> None:
    fresh.start()
    with fresh.connect() as connection:
        connection.execute("CREATE TABLE kept (id int PRIMARY KEY, note text)")
        connection.execute("INSERT INTO kept SELECT n, 'row ' || n FROM generate_series(1, 300) n")
    idle = fresh.connect()
    assert fresh.stop() == 0
    with pytest.raises(psycopg.OperationalError):
        idle.execute("SELECT 1")
    for name in (
        "cluster/cluster.toml",
        "shards/shard_000/metadata.toml",
        "logs/system.log",
        "logs/error.log",
    ):
        assert (fresh.data / name).exists(), name
    fresh.start()
    with fresh.connect() as connection:
        assert connection.execute("SELECT count(*), min(note) FROM kept").fetchone() == (
            300,
            "row 1",
        )


def test_errors_and_slow_statements_are_written_down(fresh: ServerProcess) -> None:
    fresh.settings["SHARDFORGE_SQL_SLOW_STATEMENT_MS"] = "0"
    fresh.start()
    with fresh.connect() as connection:
        with pytest.raises(psycopg.errors.UndefinedTable) as caught:
            connection.execute("SELECT * FROM nowhere")
        connection.execute("SELECT 42 AS answer")
    fresh.stop()
    errors = [json.loads(line) for line in (fresh.data / "logs/error.log").read_text().splitlines()]
    assert any(e["event"] == f"Query error: {caught.value.diag.message_primary}" for e in errors)
    slow = [json.loads(line) for line in (fresh.data / "logs/query.log").read_text().splitlines()]
    assert any(entry["fields"]["statement"] == "SELECT 42 AS answer" for entry in slow)


def test_metrics(fresh: ServerProcess) -> None:
    port = free_port()
    fresh.arguments = ("--metrics-port", str(port))
    fresh.start()
    with fresh.connect() as connection:
        connection.execute("CREATE TABLE counted (id int PRIMARY KEY)")
        connection.execute("INSERT INTO counted VALUES (1)")
        text = (
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        )
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(figures["shardforge_connections"]) == 1
    assert float(figures['shardforge_statements_total{kind="insert",outcome="ok"}']) == 1
    assert float(figures["shardforge_log_fsyncs_total"]) > 0
    assert float(figures['shardforge_engine_memtable_bytes{shard="1"}']) > 0
    form = str(COMPILED).lower()
    assert f'shardforge_build_info{{compiled="{form}",version="{__version__}"}}' in figures
    assert any(name.startswith("shardforge_statement_seconds_bucket") for name in figures)


def test_query_timeout_and_connection_limit(fresh: ServerProcess) -> None:
    fresh.settings |= {
        "SHARDFORGE_SQL_QUERY_TIMEOUT_SEC": "1.0",
        "SHARDFORGE_SQL_MAX_CONNECTIONS": "2",
    }
    fresh.start()
    with fresh.connect(autocommit=False) as first, fresh.connect(autocommit=False) as second:
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            fresh.connect()
        first.execute("CREATE TABLE waited (id int PRIMARY KEY)")
        first.execute("INSERT INTO waited VALUES (1)")
        first.commit()
        first.execute("SELECT * FROM waited FOR UPDATE")
        with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
            second.execute("SELECT * FROM waited FOR UPDATE")
    with fresh.connect() as third:
        assert third.execute("SHOW statement_timeout").fetchone() == ("1s",)


def test_passwords(fresh: ServerProcess) -> None:
    fresh.start()
    with fresh.connect() as connection:
        connection.execute("CREATE ROLE ada LOGIN PASSWORD 'a secret'")
        connection.execute("ALTER ROLE shardforge PASSWORD 'the root''s'")
    fresh.stop()
    fresh.settings["SHARDFORGE_SECURITY_AUTHENTICATION"] = "scram-sha-256"
    fresh.start()
    where = f"host=127.0.0.1 port={fresh.port} dbname=shardforge"
    with psycopg.connect(f"{where} user=ada password='a secret'") as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("ada",)
    for user, password in (("ada", "wrong"), ("nobody", "a secret")):
        with pytest.raises(
            psycopg.OperationalError, match=f'password authentication failed for user "{user}"'
        ):
            psycopg.connect(f"{where} user={user} password='{password}'")


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(start).not_valid_after(start + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    files = folder / "node.crt", folder / "node.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ))  # fmt: skip
    return files


def test_tls(fresh: ServerProcess, tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    fresh.settings |= {
        "SHARDFORGE_SECURITY_TLS_CERTIFICATE": str(chain),
        "SHARDFORGE_SECURITY_TLS_KEY": str(key),
        "SHARDFORGE_SECURITY_TLS_REQUIRED": "true",
    }
    fresh.start()
    with psycopg.connect(f"{fresh.dsn} sslmode=verify-full sslrootcert={chain}") as connection:
        assert connection.execute("SHOW ssl").fetchone() == ("on",)
        assert len(str(connection.execute("SELECT repeat('x', 300000)").fetchone())) > 300_000
    with pytest.raises(psycopg.OperationalError, match="requires TLS"):
        psycopg.connect(f"{fresh.dsn} sslmode=disable")


def test_commands_about_clusters_show_certificates_where_nodes_do(
    fresh: ServerProcess, tmp_path: Path
) -> None:
    chain, key = certificate(tmp_path)
    trusted = {
        "SHARDFORGE_SECURITY_TLS_CERTIFICATE": str(chain),
        "SHARDFORGE_SECURITY_TLS_KEY": str(key),
        "SHARDFORGE_SECURITY_TLS_CA": str(chain),
    }
    fresh.settings |= trusted
    fresh.start()
    asked = ("nodes", "--json", "--host", f"127.0.0.1:{fresh.port}")
    refused = command("cluster", *asked)
    assert refused.returncode == 2
    assert refused.stderr.startswith("shardforge: Network error: "), refused.stderr
    assert "demands TLS" in refused.stderr
    assert json.loads(command("cluster", *asked, settings=trusted).stdout)["serving_node"] == 1
    file = tmp_path / "shardforge.toml"
    file.write_text(
        f'[security]\ntls_certificate = "{chain}"\ntls_key = "{key}"\ntls_ca = "{chain}"\n'
    )
    found = command("cluster", "--config", str(file), *asked)
    assert json.loads(found.stdout)["serving_node"] == 1


def test_the_log_level_changes_while_running(fresh: ServerProcess) -> None:
    fresh.start()
    with fresh.connect() as connection:
        connection.execute("SET log_level = 'debug'")
        assert connection.execute("SHOW log_level").fetchone() == ("debug",)
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            connection.execute("SET log_level = 'shouting'")


def test_many_clients_at_once(fresh: ServerProcess) -> None:
    fresh.start()
    with fresh.connect() as connection:
        connection.execute("CREATE TABLE counter (id int PRIMARY KEY, n int)")
        connection.execute("INSERT INTO counter VALUES (1, 0)")

    def add() -> None:
        with fresh.connect() as own:
            for _ in range(25):
                own.execute("UPDATE counter SET n = n + 1 WHERE id = 1")

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with fresh.connect() as connection:
        assert connection.execute("SELECT n FROM counter").fetchone() == (200,)
