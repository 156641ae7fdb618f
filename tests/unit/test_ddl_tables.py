"""CREATE, ALTER and DROP of tables, sequences and schemas: descriptors, messages and SQLSTATEs as PostgreSQL 15's."""

from __future__ import annotations

import pytest

from shardforge.sql.catalog.descriptors import Sequence, Table
from tests.ddl_bench import Bench, on_bench


def table_of(bench: Bench, name: str) -> Table:
    return bench.catalog.table(None, name, bench.search_path)


def test_a_table_has_its_columns_keys_and_sequence():
    async def test(bench: Bench) -> None:
        assert (
            await bench.run(
                "CREATE TABLE t (a int PRIMARY KEY, b varchar(10) NOT NULL UNIQUE, c serial, d numeric(10,2))"
            )
            == "CREATE TABLE"
        )
        table = table_of(bench, "t")
        assert [(c.id, c.name, c.not_null) for c in table.columns] == [
            (1, "a", True), (2, "b", True), (3, "c", True), (4, "d", False),
        ]  # fmt: skip
        assert [(i.name, i.primary, i.unique) for i in table.indexes] == [
            ("t_pkey", True, True),
            ("t_b_key", False, True),
        ]
        sequence = bench.catalog.relation(None, "t_c_seq", bench.search_path)
        assert isinstance(sequence, Sequence)
        assert sequence.owned_by == (table.id, 3)
        assert sequence.maximum == 2**31 - 1
        assert table.columns[2].default == f"nextval('{sequence.id}'::regclass)"
        assert table.layouts == (((1, 23), (2, 1043), (3, 23), (4, 1700)),)

    on_bench(test)


def test_a_table_without_primary_key_has_a_hidden_row_number():
    async def test(bench: Bench) -> None:
        await bench.run("CREATE TABLE t (a int)")
        table = table_of(bench, "t")
        assert [c.hidden for c in table.columns] == [False, True]
        assert table.indexes[0].primary
        assert table.indexes[0].name == ""

    on_bench(test)


def test_a_shard_key_places_rows_and_must_be_in_the_primary_key():
    async def test(bench: Bench) -> None:
        await bench.run(
            "CREATE TABLE o (w int, id int, PRIMARY KEY (w, id)) WITH (shard_key = 'w', fillfactor = 90)"
        )
        table = table_of(bench, "o")
        assert (table.sharding.kind, table.sharding.shard_key) == ("colocated", (1,))
        assert (
            await bench.fails("CREATE TABLE p (w int, id int PRIMARY KEY) WITH (shard_key='w')")
        )[0] == "42P16"
        assert (await bench.fails("CREATE TABLE p (w int) WITH (sharding = 'round')"))[0] == "22023"
        assert (await bench.fails("CREATE TABLE p (w int) WITH (nonsense = 1)"))[:2] == (
            "22023", 'unrecognized parameter "nonsense"',
        )  # fmt: skip

    on_bench(test)


ERRORS = [
    ("CREATE TABLE t (a int)", "42P07", 'relation "t" already exists', ""),
    ("CREATE TABLE x (a int, a text)", "42701", 'column "a" specified more than once', ""),
    ("CREATE TABLE x (a nonesuch)", "42704", 'type "nonesuch" does not exist', ""),
    ("CREATE TABLE nope.x (a int)", "3F000", 'schema "nope" does not exist', ""),
    ("CREATE TABLE x (a int PRIMARY KEY, b int PRIMARY KEY)", "42P16",
     'multiple primary keys for table "x" are not allowed', ""),
    ("CREATE TABLE x (a int, PRIMARY KEY (b))", "42703", 'column "b" named in key does not exist', ""),
    ("CREATE TABLE x (a int, PRIMARY KEY (a, a))", "42701",
     'column "a" appears twice in primary key constraint', ""),
    ("CREATE TABLE x (a int REFERENCES nope)", "42P01", 'relation "nope" does not exist', ""),
    ("CREATE TABLE x (a int REFERENCES t (b))", "42830",
     'there is no unique constraint matching given keys for referenced table "t"', ""),
    ("CREATE TABLE x (a text REFERENCES t)", "42804", 'foreign key constraint "x_a_fkey" cannot be implemented',
     'Key columns "a" and "a" are of incompatible types: text and integer.'),
    ("CREATE TABLE x (a int NULL NOT NULL)", "42601",
     'conflicting NULL/NOT NULL declarations for column "a" of table "x"', ""),
    ("CREATE TABLE x (a text GENERATED ALWAYS AS IDENTITY)", "22023",
     "identity column type must be smallint, integer, or bigint", ""),
    ("CREATE TABLE x (xmin int)", "42701", 'column name "xmin" conflicts with a system column name', ""),
    ("CREATE TABLE x (a json UNIQUE)", "42704",
     'data type json has no default operator class for access method "btree"', ""),
    ("CREATE TABLE x (a int) PARTITION BY RANGE (a)", "0A000",
     "table partitioning (PARTITION BY) is not supported", ""),
    ("CREATE TABLE x () INHERITS (t)", "0A000", "table inheritance (INHERITS) is not supported", ""),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "0A000", "CREATE FUNCTION is not supported", ""),
    ("DROP TABLE nope", "42P01", 'table "nope" does not exist', ""),
    ("DROP VIEW t", "42809", '"t" is not a view', ""),
    ("DROP INDEX t_pkey", "2BP01",
     "cannot drop index t_pkey because constraint t_pkey on table t requires it", ""),
    ("DROP TABLE t", "2BP01", "cannot drop table t because other objects depend on it",
     "constraint c_t_fkey on table c depends on table t"),
    ("DROP SEQUENCE t_s_seq", "2BP01", "cannot drop sequence t_s_seq because other objects depend on it",
     "default value for column s of table t depends on sequence t_s_seq"),
    ("ALTER TABLE t DROP COLUMN nope", "42703", 'column "nope" of relation "t" does not exist', ""),
    ("ALTER TABLE t DROP COLUMN a", "2BP01", "cannot drop column a of table t because other objects depend on it",
     "constraint c_t_fkey on table c depends on column a of table t"),
    ("ALTER TABLE t ADD COLUMN b int", "42701", 'column "b" of relation "t" already exists', ""),
    ("ALTER TABLE t DROP CONSTRAINT nope", "42704", 'constraint "nope" of relation "t" does not exist', ""),
    ("ALTER TABLE t ADD PRIMARY KEY (b)", "42P16", 'multiple primary keys for table "t" are not allowed', ""),
    ("ALTER TABLE t ALTER a DROP NOT NULL", "42P16", 'column "a" is in a primary key', ""),
    ("ALTER TABLE t RENAME COLUMN a TO b", "42701", 'column "b" of relation "t" already exists', ""),
    ("ALTER TABLE nope ADD COLUMN b int", "42P01", 'relation "nope" does not exist', ""),
    ("TRUNCATE t", "0A000", "cannot truncate a table referenced in a foreign key constraint",
     'Table "c" references "t".'),
    ("CREATE SCHEMA public", "42P06", 'schema "public" already exists', ""),
    ("CREATE SCHEMA pg_mine", "42939", 'unacceptable schema name "pg_mine"',
     'The prefix "pg_" is reserved for system schemas.'),
    ("DROP SCHEMA nope", "3F000", 'schema "nope" does not exist', ""),
    ("CREATE SEQUENCE s INCREMENT 0", "22023", "INCREMENT must not be zero", ""),
    ("CREATE SEQUENCE s MAXVALUE 5 START 6", "22023", "START value (6) cannot be greater than MAXVALUE (5)", ""),
    ("CREATE ROLE shardforge", "42710", 'role "shardforge" already exists', ""),
    ("DROP ROLE nope", "42704", 'role "nope" does not exist', ""),
    ("CREATE DATABASE postgres", "42P04", 'database "postgres" already exists', ""),
    ("CREATE INDEX ON t USING gin (b)", "0A000", "access method gin is not supported", ""),
    ("CREATE INDEX ON t (nope)", "42703", 'column "nope" does not exist', ""),
    ("CREATE INDEX t_pkey ON t (b)", "42P07", 'relation "t_pkey" already exists', ""),
    ("COMMENT ON TABLE nope IS 'x'", "42P01", 'relation "nope" does not exist', ""),
    ("DROP TABLE pg_class", "42501", 'permission denied: "pg_class" is a system catalog', ""),
]  # fmt: skip


def test_errors_are_postgresql_s():
    async def test(bench: Bench) -> None:
        await bench.run(
            "CREATE TABLE t (a int PRIMARY KEY, b int, s serial); CREATE TABLE c (t int REFERENCES t)"
        )
        for text, sqlstate, message, detail in ERRORS:
            assert await bench.fails(text) == (sqlstate, message, detail), text

    on_bench(test)


NOTICES = [
    ("CREATE TABLE IF NOT EXISTS t (x int)", 'NOTICE: relation "t" already exists, skipping'),
    ("DROP TABLE IF EXISTS nope", 'NOTICE: table "nope" does not exist, skipping'),
    (
        "ALTER TABLE IF EXISTS nope ADD COLUMN b int",
        'NOTICE: relation "nope" does not exist, skipping',
    ),
    ("CREATE SCHEMA IF NOT EXISTS public", 'NOTICE: schema "public" already exists, skipping'),
    ("TRUNCATE t CASCADE", 'NOTICE: truncate cascades to table "c"'),
    ("DROP TABLE t CASCADE", "NOTICE: drop cascades to constraint c_t_fkey on table c"),
]


def test_notices_are_postgresql_s():
    async def test(bench: Bench) -> None:
        await bench.run("CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE c (t int REFERENCES t)")
        for text, notice in NOTICES:
            bench.notices.clear()
            await bench.run(text)
            assert bench.notices == [notice], text
        assert table_of(bench, "c").foreign_keys == ()

    on_bench(test)


def test_a_rollback_undoes_ddl_and_another_session_never_saw_it():
    async def test(bench: Bench) -> None:
        other = Bench(bench.store, session_id=8)
        await bench.begin()
        await bench.run("CREATE TABLE t (a int)")
        assert bench.catalog.relation(None, "t", ("public",)) is not None
        assert bench.store.refresh(other.catalog).relation(None, "t", ("public",)) is None
        await bench.end(commit=False)
        assert bench.catalog.relation(None, "t", ("public",)) is None
        await bench.run("CREATE TABLE t (b int)")
        assert bench.store.refresh(other.catalog).relation(None, "t", ("public",)) is not None

    on_bench(test)


def test_temporary_tables_hide_others_and_belong_to_their_session():
    async def test(bench: Bench) -> None:
        other = Bench(bench.store, session_id=8)
        await bench.run("CREATE TABLE t (a int); CREATE TEMP TABLE t (b int)")
        other.catalog = bench.store.refresh(other.catalog)
        assert table_of(bench, "t").columns[0].name == "b"
        assert table_of(other, "t").columns[0].name == "a"
        assert bench.catalog.relation("pg_temp", "t", bench.search_path) == table_of(bench, "t")

    on_bench(test)


def test_dropped_columns_keep_their_number_and_rename_reaches_the_descriptor():
    async def test(bench: Bench) -> None:
        await bench.run("CREATE TABLE t (a int, b int, c int)")
        await bench.run("ALTER TABLE t DROP COLUMN b, ADD COLUMN d int")
        await bench.run("ALTER TABLE t RENAME COLUMN c TO e; ALTER TABLE t RENAME TO u")
        table = table_of(bench, "u")
        live = [(c.id, c.name) for c in table.columns if not c.dropped and not c.hidden]
        assert live == [(1, "a"), (3, "e"), (4, "d")]
        assert len(table.layouts) == 3
        assert [column_id for column_id, _ in table.layouts[-1]] == [1, 3, 4, 2000]

    on_bench(test)


def test_a_foreign_key_holds_the_types_of_its_own_columns_only():
    async def test(bench: Bench) -> None:
        await bench.run("CREATE TABLE t (a int PRIMARY KEY, born date, note varchar(9))")
        await bench.run("CREATE TABLE u (a int REFERENCES t, seen date)")
        await bench.run("ALTER TABLE t ALTER born TYPE timestamptz, ALTER note TYPE text")
        await bench.run("ALTER TABLE u ALTER seen TYPE timestamp")
        for change in ("t ALTER a TYPE text", "u ALTER a TYPE text"):
            assert (await bench.fails(f"ALTER TABLE {change}"))[:2] == (
                "0A000", 'changing the type of column "a" used in a foreign key is not supported',
            )  # fmt: skip

    on_bench(test)


def test_identity_sequences_are_part_of_their_column():
    async def test(bench: Bench) -> None:
        await bench.run("CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY (START 5))")
        assert (await bench.fails("DROP SEQUENCE t_a_seq"))[:2] == (
            "2BP01", "cannot drop sequence t_a_seq because column a of table t requires it",
        )  # fmt: skip
        await bench.run("ALTER TABLE t ALTER a DROP IDENTITY")
        assert bench.catalog.relation(None, "t_a_seq", ("public",)) is None

    on_bench(test)


def test_like_copies_what_is_asked_for():
    async def test(bench: Bench) -> None:
        await bench.run(
            "CREATE TABLE t (a int PRIMARY KEY, b int UNIQUE, c serial); CREATE INDEX ON t (c DESC)"
        )
        await bench.run("CREATE TABLE bare (LIKE t); CREATE TABLE full_copy (LIKE t INCLUDING ALL)")
        assert [i.name for i in table_of(bench, "bare").indexes] == [""]
        copy = table_of(bench, "full_copy")
        assert [i.name for i in copy.indexes] == [
            "full_copy_pkey", "full_copy_b_key", "full_copy_c_idx",
        ]  # fmt: skip
        assert copy.columns[2].default == table_of(bench, "t").columns[2].default

    on_bench(test)


def test_the_catalog_is_there_again_after_a_restart():
    async def test(bench: Bench) -> None:
        await bench.run(
            "CREATE SCHEMA s; CREATE TABLE s.t (a int PRIMARY KEY); CREATE ROLE bob PASSWORD 'x'"
        )
        await bench.run("CREATE TEMP TABLE gone (a int)")
        reopened = type(bench.store)(bench.store.coordinator)
        await reopened.load()
        again = reopened.current("shardforge")
        assert again.relation("s", "t") == bench.catalog.relation("s", "t")
        bob = again.role_named("bob")
        assert bob is not None
        assert bob.verifier is not None
        assert bob.verifier.startswith("SCRAM-SHA-256$4096:")
        assert not [t for t in again.tables() if t.name == "gone"]

    on_bench(test)


@pytest.mark.parametrize("name", ["A b", 'q"uote', "select", "é"])
def test_names_that_need_quotes(name: str):
    async def test(bench: Bench) -> None:
        quoted = name.replace('"', '""')
        await bench.run(f'CREATE TABLE "{quoted}" ("{quoted}" int PRIMARY KEY)')
        assert table_of(bench, name).columns[0].name == name
        await bench.run(f'DROP TABLE "{quoted}"')

    on_bench(test)
