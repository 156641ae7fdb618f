"""The nine tables (clause 1.3), their sizes, and where their rows live.

With `sharded`, a warehouse's rows are kept together (`WITH (shard_key = ...)`), so that most transactions are one
shard's business; items, which never change, are spread. PostgreSQL has no such parameter: `takes_shard_keys` asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

Connection: TypeAlias = asyncpg.Connection


@dataclass(frozen=True)
class Scale:
    """How much there is; the specification's numbers by default, fewer for tests."""

    warehouses: int = 1
    items: int = 100_000
    customers: int = 3_000
    """For each district; as many orders, of which the newest three of ten are not delivered yet."""
    districts: int = 10

    @property
    def delivered(self) -> int:
        """The orders of a district that are delivered from the start."""
        return self.customers * 7 // 10


_TABLES = {
    "warehouse": (
        "w_id int PRIMARY KEY, w_name varchar(10), w_street_1 varchar(20), w_street_2 varchar(20), w_city varchar(20),"
        " w_state char(2), w_zip char(9), w_tax numeric(4,4), w_ytd numeric(12,2)",
        "w_id",
    ),
    "district": (
        "d_w_id int, d_id int, d_name varchar(10), d_street_1 varchar(20), d_street_2 varchar(20), d_city varchar(20),"
        " d_state char(2), d_zip char(9), d_tax numeric(4,4), d_ytd numeric(12,2), d_next_o_id int,"
        " PRIMARY KEY (d_w_id, d_id)",
        "d_w_id",
    ),
    "customer": (
        "c_w_id int, c_d_id int, c_id int, c_first varchar(16), c_middle char(2), c_last varchar(16),"
        " c_street_1 varchar(20), c_street_2 varchar(20), c_city varchar(20), c_state char(2), c_zip char(9),"
        " c_phone char(16), c_since timestamp, c_credit char(2), c_credit_lim numeric(12,2), c_discount numeric(4,4),"
        " c_balance numeric(12,2), c_ytd_payment numeric(12,2), c_payment_cnt int, c_delivery_cnt int,"
        " c_data varchar(500), PRIMARY KEY (c_w_id, c_d_id, c_id)",
        "c_w_id",
    ),
    "history": (
        "h_c_id int, h_c_d_id int, h_c_w_id int, h_d_id int, h_w_id int, h_date timestamp, h_amount numeric(6,2),"
        " h_data varchar(24)",
        "h_w_id",
    ),
    "new_order": (
        "no_w_id int, no_d_id int, no_o_id int, PRIMARY KEY (no_w_id, no_d_id, no_o_id)",
        "no_w_id",
    ),
    "orders": (
        "o_w_id int, o_d_id int, o_id int, o_c_id int, o_entry_d timestamp, o_carrier_id int, o_ol_cnt int,"
        " o_all_local int, PRIMARY KEY (o_w_id, o_d_id, o_id)",
        "o_w_id",
    ),
    "order_line": (
        "ol_w_id int, ol_d_id int, ol_o_id int, ol_number int, ol_i_id int, ol_supply_w_id int,"
        " ol_delivery_d timestamp, ol_quantity int, ol_amount numeric(6,2), ol_dist_info char(24),"
        " PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number)",
        "ol_w_id",
    ),
    "item": (
        "i_id int PRIMARY KEY, i_im_id int, i_name varchar(24), i_price numeric(5,2), i_data varchar(50)",
        "",
    ),
    "stock": (
        "s_w_id int, s_i_id int, s_quantity int, "
        + ", ".join(f"s_dist_{d:02} char(24)" for d in range(1, 11))
        + ", s_ytd int, s_order_cnt int, s_remote_cnt int, s_data varchar(50), PRIMARY KEY (s_w_id, s_i_id)",
        "s_w_id",
    ),
}
"""Columns of each table, and its shard key."""

_INDEXES = (
    "CREATE INDEX customer_name ON customer (c_w_id, c_d_id, c_last, c_first)",
    "CREATE INDEX orders_customer ON orders (o_w_id, o_d_id, o_c_id, o_id)",
)

_FOREIGN_KEYS = (
    ("district", "d_w_id", "warehouse"),
    ("customer", "c_w_id, c_d_id", "district"),
    ("history", "h_c_w_id, h_c_d_id, h_c_id", "customer"),
    ("history", "h_w_id, h_d_id", "district"),
    ("new_order", "no_w_id, no_d_id, no_o_id", "orders"),
    ("orders", "o_w_id, o_d_id, o_c_id", "customer"),
    ("order_line", "ol_w_id, ol_d_id, ol_o_id", "orders"),
    ("order_line", "ol_supply_w_id, ol_i_id", "stock"),
    ("stock", "s_w_id", "warehouse"),
    ("stock", "s_i_id", "item"),
)


async def takes_shard_keys(connection: Connection) -> bool:
    """Whether the server knows the parameter."""
    try:
        await connection.execute(
            "CREATE TABLE tpcc_probe (k int PRIMARY KEY) WITH (shard_key = 'k')"
        )
    except asyncpg.PostgresError:
        return False
    await connection.execute("DROP TABLE tpcc_probe")
    return True


async def create_tables(connection: Connection, *, sharded: bool) -> None:
    """The tables, with primary keys only."""
    for name, (columns, shard_key) in _TABLES.items():
        where = f" WITH (shard_key = '{shard_key}')" if sharded and shard_key else ""
        await connection.execute(f"CREATE TABLE {name} ({columns}){where}")


async def create_indexes(connection: Connection, *, foreign_keys: bool) -> None:
    """What is quicker made once the rows are there, and statistics."""
    for index in _INDEXES:
        await connection.execute(index)
    if foreign_keys:
        for table, columns, target in _FOREIGN_KEYS:
            await connection.execute(
                f"ALTER TABLE {table} ADD FOREIGN KEY ({columns}) REFERENCES {target}"
            )
    for name in _TABLES:
        await connection.execute(f"ANALYZE {name}")
