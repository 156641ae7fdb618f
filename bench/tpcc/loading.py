"""The initial rows (clause 4.3.3), streamed with COPY."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from random import Random

from bench.tpcc.schema import Connection, Scale, create_indexes, create_tables, takes_shard_keys
from bench.tpcc.values import LAST_NAMES, Values, last_name

Row = tuple[object, ...]
_ROWS_A_PIECE = 500
_NOW = "2026-01-01 00:00:00"


async def load(connection: Connection, scale: Scale, random: Random, *, foreign_keys: bool) -> int:
    """Make and fill the tables. Returns the constant of last names that a run must know."""
    values = Values(random)
    await create_tables(connection, sharded=await takes_shard_keys(connection))
    await _copy(connection, "item", _items(values, scale))
    for warehouse in range(1, scale.warehouses + 1):
        await _copy(connection, "warehouse", iter([_warehouse(values, scale, warehouse)]))
        await _copy(connection, "stock", _stock(values, scale, warehouse))
        for district in range(1, scale.districts + 1):
            place = (warehouse, district)
            await _copy(connection, "district", iter([_district(values, scale, place)]))
            await _copy(connection, "customer", _customers(values, scale, place))
            await _copy(connection, "history", _histories(values, scale, place))
            orders = _orders(values, scale, place)
            await _copy(connection, "orders", iter(orders))
            await _copy(connection, "order_line", _order_lines(values, scale, orders))
            await _copy(connection, "new_order", (row[:3] for row in orders if row[5] is None))
    await create_indexes(connection, foreign_keys=foreign_keys)
    return values.last_constant


async def _copy(connection: Connection, table: str, rows: Iterator[Row]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        lines: list[str] = []
        for row in rows:
            lines.append("\t".join("\\N" if cell is None else str(cell) for cell in row) + "\n")
            if len(lines) == _ROWS_A_PIECE:
                yield "".join(lines).encode()
                lines.clear()
        yield "".join(lines).encode()

    await connection.copy_to_table(table, source=pieces())


def _items(values: Values, scale: Scale) -> Iterator[Row]:
    for item in range(1, scale.items + 1):
        image = values.random.randint(1, 10_000)
        yield item, image, values.text(14, 24), values.cents(100, 10_000), values.original(26, 50)


def _address(values: Values) -> Row:
    streets = (values.text(10, 20), values.text(10, 20), values.text(10, 20))
    return (*streets, values.text(2, 2), values.zip())


def _warehouse(values: Values, scale: Scale, warehouse: int) -> Row:
    ytd = f"{10 * scale.customers * scale.districts}.00"
    return (warehouse, values.text(6, 10), *_address(values), values.rate(2000), ytd)


def _stock(values: Values, scale: Scale, warehouse: int) -> Iterator[Row]:
    for item in range(1, scale.items + 1):
        districts = [values.text(24, 24) for _ in range(10)]
        quantity = values.random.randint(10, 100)
        yield warehouse, item, quantity, *districts, 0, 0, 0, values.original(26, 50)


def _district(values: Values, scale: Scale, place: tuple[int, int]) -> Row:
    ytd = f"{10 * scale.customers}.00"
    name = values.text(6, 10)
    return (*place, name, *_address(values), values.rate(2000), ytd, scale.customers + 1)


def _customers(values: Values, scale: Scale, place: tuple[int, int]) -> Iterator[Row]:
    for customer in range(1, scale.customers + 1):
        last = (
            last_name(customer - 1) if customer <= LAST_NAMES else values.last_name(scale.customers)
        )
        credit = "BC" if values.random.random() < 0.1 else "GC"
        yield (
            *place, customer, values.text(8, 16), "OE", last, *_address(values), values.digits(16), _NOW, credit,
            "50000.00", values.rate(5000), "-10.00", "10.00", 1, 0, values.text(300, 500),
        )  # fmt: skip


def _histories(values: Values, scale: Scale, place: tuple[int, int]) -> Iterator[Row]:
    warehouse, district = place
    for customer in range(1, scale.customers + 1):
        yield (
            customer, district, warehouse, district, warehouse, _NOW, "10.00", values.text(12, 24),
        )  # fmt: skip


def _orders(values: Values, scale: Scale, place: tuple[int, int]) -> list[Row]:
    customers = list(range(1, scale.customers + 1))
    values.random.shuffle(customers)
    rows: list[Row] = []
    for order, customer in enumerate(customers, start=1):
        carrier = values.random.randint(1, 10) if order <= scale.delivered else None
        rows.append((*place, order, customer, _NOW, carrier, values.random.randint(5, 15), 1))
    return rows


def _order_lines(values: Values, scale: Scale, orders: list[Row]) -> Iterator[Row]:
    for warehouse, district, order, _, _, carrier, lines, _ in orders:
        assert isinstance(lines, int)
        for number in range(1, lines + 1):
            delivered = carrier is not None
            amount = "0.00" if delivered else values.cents(1, 999_999)
            item = values.random.randint(1, scale.items)
            yield (
                warehouse, district, order, number, item, warehouse, _NOW if delivered else None, 5, amount,
                values.text(24, 24),
            )  # fmt: skip
