"""The five transactions (clause 2), each in one database transaction of one connection.

Rows that several transactions write are locked in one order (warehouse, district, customer; stock by warehouse and
item; districts of a delivery by number), so that no schedule deadlocks: an error is the server's.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from bench.tpcc.schema import Connection, Scale
from bench.tpcc.values import Values

UNUSED_ITEM = 0
_ROLLBACKS = 0.01
_REMOTE_LINES = 0.01
_REMOTE_PAYMENTS = 0.15
_BY_NAME = 0.6


class UnknownItemError(Exception):
    """A New-Order that named an item that there is not (clause 2.4.1.4): one in a hundred."""


class Work:
    """The transactions of one terminal: inputs are drawn first, so that a repetition asks the same again."""

    def __init__(self, values: Values, scale: Scale, warehouse: int, district: int) -> None:
        self._values = values
        self._random = values.random
        self._scale = scale
        self._warehouse = warehouse
        self._district = district

    def new_order(self) -> NewOrder:
        """An order of five to fifteen lines."""
        random, scale, values = self._random, self._scale, self._values
        lines = []
        for _ in range(random.randint(5, 15)):
            supplier = self._warehouse
            if random.random() < _REMOTE_LINES:
                supplier = self._other_warehouse()
            lines.append((supplier, values.item(scale.items), random.randint(1, 10)))
        if random.random() < _ROLLBACKS:
            lines[-1] = (*lines[-1][:1], UNUSED_ITEM, *lines[-1][2:])
        district = random.randint(1, scale.districts)
        return NewOrder(self._warehouse, district, values.customer(scale.customers), lines)

    def payment(self) -> Payment:
        """A payment, by customer number or last name, of this warehouse or another one."""
        district = self._random.randint(1, self._scale.districts)
        home = (self._warehouse, district)
        customer_of = home
        if self._random.random() < _REMOTE_PAYMENTS and self._scale.warehouses > 1:
            other = self._random.randint(1, self._scale.districts)
            customer_of = (self._other_warehouse(), other)
        amount = Decimal(self._random.randint(100, 500_000)).scaleb(-2)
        return Payment(home, customer_of, self._who(), amount)

    def order_status(self) -> OrderStatus:
        """The last order of a customer."""
        district = self._random.randint(1, self._scale.districts)
        return OrderStatus((self._warehouse, district), self._who())

    def delivery(self) -> Delivery:
        """The oldest open order of every district."""
        return Delivery(self._warehouse, self._scale.districts, self._random.randint(1, 10))

    def stock_level(self) -> StockLevel:
        """How many recently ordered items run low."""
        return StockLevel(self._warehouse, self._district, self._random.randint(10, 20))

    def _who(self) -> int | str:
        if self._random.random() < _BY_NAME:
            return self._values.last_name(self._scale.customers)
        return self._values.customer(self._scale.customers)

    def _other_warehouse(self) -> int:
        if self._scale.warehouses == 1:
            return self._warehouse
        other = self._random.randint(1, self._scale.warehouses - 1)
        return other if other < self._warehouse else other + 1


async def _one(connection: Connection, sql: str, *arguments: Any) -> Any:
    row = await connection.fetchrow(sql, *arguments)
    assert row is not None, f"no row: {sql} {arguments}"
    return row


class NewOrder:
    """Clause 2.4."""

    def __init__(
        self, warehouse: int, district: int, customer: int, lines: list[tuple[int, int, int]]
    ) -> None:
        """`lines`: supplying warehouse, item and quantity of each."""
        self._customer = (warehouse, district, customer)
        self._lines = lines
        self.at_home = all(supplier == warehouse for supplier, _, _ in lines)
        """Whether it writes rows of one warehouse only, the shard key."""

    async def run(self, connection: Connection) -> None:
        """Enter the order."""
        warehouse, district, customer = self._customer
        await _one(
            connection,
            "SELECT w_tax, c_discount, c_last, c_credit FROM warehouse, customer"
            " WHERE w_id = $1 AND c_w_id = $1 AND c_d_id = $2 AND c_id = $3",
            warehouse, district, customer,
        )  # fmt: skip
        entered = await _one(
            connection,
            "UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = $1 AND d_id = $2"
            " RETURNING d_next_o_id - 1 AS order, d_tax",
            warehouse, district,
        )  # fmt: skip
        place = (warehouse, district, int(entered["order"]))
        local = all(supplier == warehouse for supplier, _, _ in self._lines)
        await connection.execute(
            "INSERT INTO orders (o_w_id, o_d_id, o_id, o_c_id, o_entry_d, o_ol_cnt, o_all_local)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)",
            *place, customer, datetime.now(), len(self._lines), int(local),  # noqa: DTZ005 - the terminal's time of day
        )  # fmt: skip
        await connection.execute("INSERT INTO new_order VALUES ($1, $2, $3)", *place)
        prices = await connection.fetchmany(
            "SELECT i_price, i_name, i_data FROM item WHERE i_id = $1",
            [(item,) for _, item, _ in self._lines],
        )
        if len(prices) < len(self._lines):
            raise UnknownItemError
        await self._take_from_stock(connection, place, [row["i_price"] for row in prices])

    async def _take_from_stock(
        self, connection: Connection, place: tuple[int, int, int], prices: list[Decimal]
    ) -> None:
        warehouse, district, _ = place
        numbered = sorted(
            (supplier, item, number, quantity)
            for number, (supplier, item, quantity) in enumerate(self._lines, start=1)
        )
        stock = await connection.fetchmany(
            "UPDATE stock SET s_quantity = CASE WHEN s_quantity >= $3::int + 10 THEN s_quantity - $3::int"
            " ELSE s_quantity - $3::int + 91 END, s_ytd = s_ytd + $3::int, s_order_cnt = s_order_cnt + 1,"
            " s_remote_cnt = s_remote_cnt + $4::int WHERE s_w_id = $1 AND s_i_id = $2"
            f" RETURNING s_dist_{district:02} AS info, s_quantity, s_data",
            [
                (supplier, item, quantity, int(supplier != warehouse))
                for supplier, item, _, quantity in numbered
            ],
        )
        await connection.executemany(
            "INSERT INTO order_line (ol_w_id, ol_d_id, ol_o_id, ol_number, ol_i_id, ol_supply_w_id, ol_quantity,"
            " ol_amount, ol_dist_info) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            [
                (*place, number, item, supplier, quantity, quantity * prices[number - 1], row["info"])
                for (supplier, item, number, quantity), row in zip(numbered, stock, strict=True)
            ],
        )  # fmt: skip


async def _customer_named(connection: Connection, place: tuple[int, int], last: str) -> int:
    """Of those with the name, by first name, the one in the middle, rounded up (clause 2.5.2.2)."""
    rows = await connection.fetch(
        "SELECT c_id FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_last = $3 ORDER BY c_first",
        *place, last,
    )  # fmt: skip
    assert rows, f"no customer {last}"
    return int(rows[(len(rows) - 1) // 2]["c_id"])


class Payment:
    """Clause 2.5."""

    def __init__(
        self,
        home: tuple[int, int],
        customer_of: tuple[int, int],
        customer: int | str,
        amount: Decimal,
    ) -> None:
        self._home = home
        self._customer_of = customer_of
        self._customer = customer
        self._amount = amount
        self.at_home = home[0] == customer_of[0]

    async def run(self, connection: Connection) -> None:
        """Take the money."""
        amount = self._amount
        warehouse = await _one(
            connection,
            "UPDATE warehouse SET w_ytd = w_ytd + $2 WHERE w_id = $1"
            " RETURNING w_name, w_street_1, w_street_2, w_city, w_state, w_zip",
            self._home[0], amount,
        )  # fmt: skip
        district = await _one(
            connection,
            "UPDATE district SET d_ytd = d_ytd + $3 WHERE d_w_id = $1 AND d_id = $2"
            " RETURNING d_name, d_street_1, d_street_2, d_city, d_state, d_zip",
            *self._home, amount,
        )  # fmt: skip
        customer = self._customer
        if isinstance(customer, str):
            customer = await _customer_named(connection, self._customer_of, customer)
        who = (*self._customer_of, customer)
        paid = await _one(
            connection,
            "UPDATE customer SET c_balance = c_balance - $4, c_ytd_payment = c_ytd_payment + $4,"
            " c_payment_cnt = c_payment_cnt + 1 WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3"
            " RETURNING c_first, c_middle, c_last, c_credit, c_credit_lim, c_discount, c_balance, c_since, c_data",
            *who, amount,
        )  # fmt: skip
        if paid["c_credit"] == "BC":
            note = " ".join(
                map(str, (customer, *self._customer_of[::-1], *self._home[::-1], amount))
            )
            await connection.execute(
                "UPDATE customer SET c_data = $4 WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3",
                *who, f"{note} | {paid['c_data']}"[:500],
            )  # fmt: skip
        await connection.execute(
            "INSERT INTO history (h_c_id, h_c_d_id, h_c_w_id, h_d_id, h_w_id, h_date, h_amount, h_data)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            *who[::-1], *self._home[::-1], datetime.now(), amount,  # noqa: DTZ005 - the terminal's time of day
            f"{warehouse['w_name']}    {district['d_name']}",
        )  # fmt: skip


class OrderStatus:
    """Clause 2.6."""

    at_home = True

    def __init__(self, place: tuple[int, int], customer: int | str) -> None:
        self._place = place
        self._customer = customer

    async def run(self, connection: Connection) -> None:
        """Look."""
        customer = self._customer
        if isinstance(customer, str):
            customer = await _customer_named(connection, self._place, customer)
        await _one(
            connection,
            "SELECT c_balance, c_first, c_middle, c_last FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3",
            *self._place, customer,
        )  # fmt: skip
        order = await _one(
            connection,
            "SELECT o_id, o_entry_d, o_carrier_id FROM orders WHERE o_w_id = $1 AND o_d_id = $2 AND o_c_id = $3"
            " ORDER BY o_id DESC LIMIT 1",
            *self._place, customer,
        )  # fmt: skip
        await connection.fetch(
            "SELECT ol_i_id, ol_supply_w_id, ol_quantity, ol_amount, ol_delivery_d FROM order_line"
            " WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3",
            *self._place, order["o_id"],
        )  # fmt: skip


class Delivery:
    """Clause 2.7, without the queue: the terminal waits for it."""

    at_home = True

    def __init__(self, warehouse: int, districts: int, carrier: int) -> None:
        self._warehouse = warehouse
        self._districts = districts
        self._carrier = carrier

    async def run(self, connection: Connection) -> None:
        """Deliver the oldest open order of each district that has one."""
        for district in range(1, self._districts + 1):
            order = await self._oldest(connection, (self._warehouse, district))
            if order is not None:
                await self._deliver(connection, (self._warehouse, district, order))

    async def _oldest(self, connection: Connection, place: tuple[int, int]) -> int | None:
        while True:
            order = await connection.fetchval(
                "SELECT no_o_id FROM new_order WHERE no_w_id = $1 AND no_d_id = $2 ORDER BY no_o_id LIMIT 1",
                *place,
            )  # fmt: skip
            if order is None:
                return None
            status = await connection.execute(
                "DELETE FROM new_order WHERE no_w_id = $1 AND no_d_id = $2 AND no_o_id = $3", *place, order,
            )  # fmt: skip
            if (
                status == "DELETE 1"
            ):  # otherwise another delivery was quicker, and this one takes the next
                return int(order)

    async def _deliver(self, connection: Connection, order: tuple[int, int, int]) -> None:
        customer = await connection.fetchval(
            "UPDATE orders SET o_carrier_id = $4 WHERE o_w_id = $1 AND o_d_id = $2 AND o_id = $3 RETURNING o_c_id",
            *order, self._carrier,
        )  # fmt: skip
        await connection.execute(
            "UPDATE order_line SET ol_delivery_d = $4 WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3",
            *order, datetime.now(),  # noqa: DTZ005 - the terminal's time of day
        )  # fmt: skip
        amount = await connection.fetchval(
            "SELECT sum(ol_amount) FROM order_line WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3", *order,
        )  # fmt: skip
        await connection.execute(
            "UPDATE customer SET c_balance = c_balance + $4, c_delivery_cnt = c_delivery_cnt + 1"
            " WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3",
            *order[:2], customer, amount,
        )  # fmt: skip


class StockLevel:
    """Clause 2.8."""

    at_home = True

    def __init__(self, warehouse: int, district: int, threshold: int) -> None:
        self._place = (warehouse, district)
        self._threshold = threshold

    async def run(self, connection: Connection) -> None:
        """Count the items of the last twenty orders that run low."""
        district = await _one(
            connection,
            "SELECT d_next_o_id FROM district WHERE d_w_id = $1 AND d_id = $2",
            *self._place,
        )
        await connection.fetchval(
            "SELECT count(DISTINCT s_i_id) FROM order_line, stock WHERE ol_w_id = $1 AND ol_d_id = $2"
            " AND ol_o_id < $3 AND ol_o_id >= $3 - 20 AND s_w_id = $1 AND s_i_id = ol_i_id AND s_quantity < $4",
            *self._place, district["d_next_o_id"], self._threshold,
        )  # fmt: skip


Action = NewOrder | Payment | OrderStatus | Delivery | StockLevel
