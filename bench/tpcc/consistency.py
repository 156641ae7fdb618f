"""The twelve consistency conditions of clause 3.3.2, as queries that find what breaks them.

Condition 11 is stated for the initial rows (orders less new orders = 2,100 in each district); the deliveries since
are counted in CUSTOMER, so that it can be asked of a database at any time.
"""

from __future__ import annotations

from bench.tpcc.schema import Connection, Scale

_PER_DISTRICT = (
    "SELECT d_w_id, d_id, d_next_o_id, o.newest, o.lines, o.orders, n.newest, n.oldest, n.open, l.lines FROM district"
    " LEFT JOIN (SELECT o_w_id, o_d_id, max(o_id) AS newest, sum(o_ol_cnt) AS lines, count(*) AS orders FROM orders"
    "  GROUP BY o_w_id, o_d_id) o ON o_w_id = d_w_id AND o_d_id = d_id"
    " LEFT JOIN (SELECT no_w_id, no_d_id, max(no_o_id) AS newest, min(no_o_id) AS oldest, count(*) AS open"
    "  FROM new_order GROUP BY no_w_id, no_d_id) n ON no_w_id = d_w_id AND no_d_id = d_id"
    " LEFT JOIN (SELECT ol_w_id, ol_d_id, count(*) AS lines FROM order_line GROUP BY ol_w_id, ol_d_id) l"
    "  ON ol_w_id = d_w_id AND ol_d_id = d_id"
)

_DELIVERED = (
    "SELECT o_w_id, o_d_id, o_c_id, sum(ol_amount) AS amount FROM orders, order_line"
    " WHERE ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id AND ol_delivery_d IS NOT NULL"
    " GROUP BY o_w_id, o_d_id, o_c_id"
)

CONDITIONS = {
    1: "SELECT w_id, w_ytd, d.ytd FROM warehouse LEFT JOIN (SELECT d_w_id, sum(d_ytd) AS ytd FROM district"
    " GROUP BY d_w_id) d ON d_w_id = w_id WHERE w_ytd IS DISTINCT FROM d.ytd",
    2: _PER_DISTRICT + " WHERE d_next_o_id - 1 IS DISTINCT FROM o.newest OR n.newest <> o.newest",
    3: _PER_DISTRICT + " WHERE n.newest - n.oldest + 1 <> n.open",
    4: _PER_DISTRICT + " WHERE o.lines IS DISTINCT FROM l.lines",
    5: "SELECT o_w_id, o_d_id, o_id, o_carrier_id, no_o_id FROM orders LEFT JOIN new_order"
    " ON no_w_id = o_w_id AND no_d_id = o_d_id AND no_o_id = o_id"
    " WHERE (o_carrier_id IS NULL) <> (no_o_id IS NOT NULL)",
    6: "SELECT o_w_id, o_d_id, o_id, o_ol_cnt, l.lines FROM orders LEFT JOIN (SELECT ol_w_id, ol_d_id, ol_o_id,"
    " count(*) AS lines FROM order_line GROUP BY ol_w_id, ol_d_id, ol_o_id) l"
    " ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id WHERE o_ol_cnt IS DISTINCT FROM l.lines",
    7: "SELECT ol_w_id, ol_d_id, ol_o_id, ol_number, ol_delivery_d, o_carrier_id FROM order_line LEFT JOIN orders"
    " ON o_w_id = ol_w_id AND o_d_id = ol_d_id AND o_id = ol_o_id"
    " WHERE o_id IS NULL OR (ol_delivery_d IS NULL) <> (o_carrier_id IS NULL)",
    8: "SELECT w_id, w_ytd, h.paid FROM warehouse LEFT JOIN (SELECT h_w_id, sum(h_amount) AS paid FROM history"
    " GROUP BY h_w_id) h ON h_w_id = w_id WHERE w_ytd IS DISTINCT FROM h.paid",
    9: "SELECT d_w_id, d_id, d_ytd, h.paid FROM district LEFT JOIN (SELECT h_w_id, h_d_id, sum(h_amount) AS paid"
    " FROM history GROUP BY h_w_id, h_d_id) h ON h_w_id = d_w_id AND h_d_id = d_id"
    " WHERE d_ytd IS DISTINCT FROM h.paid",
    10: "SELECT c_w_id, c_d_id, c_id, c_balance, d.amount, h.paid FROM customer"
    f" LEFT JOIN ({_DELIVERED}) d ON o_w_id = c_w_id AND o_d_id = c_d_id AND o_c_id = c_id"
    " LEFT JOIN (SELECT h_c_w_id, h_c_d_id, h_c_id, sum(h_amount) AS paid FROM history"
    "  GROUP BY h_c_w_id, h_c_d_id, h_c_id) h ON h_c_w_id = c_w_id AND h_c_d_id = c_d_id AND h_c_id = c_id"
    " WHERE c_balance IS DISTINCT FROM coalesce(d.amount, 0) - coalesce(h.paid, 0)",
    11: "SELECT o.o_w_id, o.o_d_id, o.orders, n.open, c.delivered FROM (SELECT o_w_id, o_d_id, count(*) AS orders"
    "  FROM orders GROUP BY o_w_id, o_d_id) o"
    " LEFT JOIN (SELECT no_w_id, no_d_id, count(*) AS open FROM new_order GROUP BY no_w_id, no_d_id) n"
    "  ON no_w_id = o_w_id AND no_d_id = o_d_id"
    " LEFT JOIN (SELECT c_w_id, c_d_id, sum(c_delivery_cnt) AS delivered FROM customer GROUP BY c_w_id, c_d_id) c"
    "  ON c_w_id = o_w_id AND c_d_id = o_d_id"
    " WHERE o.orders - coalesce(n.open, 0) IS DISTINCT FROM $1::int + c.delivered",
    12: "SELECT c_w_id, c_d_id, c_id, c_balance, c_ytd_payment, d.amount FROM customer"
    f" LEFT JOIN ({_DELIVERED}) d ON o_w_id = c_w_id AND o_d_id = c_d_id AND o_c_id = c_id"
    " WHERE c_balance + c_ytd_payment IS DISTINCT FROM coalesce(d.amount, 0)",
}


async def broken_conditions(connection: Connection, scale: Scale) -> dict[int, str]:
    """The conditions that do not hold, with the first row of each that shows it."""
    found = {}
    for number, query in CONDITIONS.items():
        arguments = (scale.delivered,) if "$1" in query else ()
        rows = await connection.fetch(f"{query} LIMIT 1", *arguments)
        if rows:
            found[number] = str(tuple(rows[0]))
    return found
