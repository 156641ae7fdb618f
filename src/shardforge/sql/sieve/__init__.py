"""Conditions that a shard elsewhere evaluates, so that only rows that pass are sent.

    serving node                                          a node with a replica
    making.py    condition, values of one execution  ->   reading.py   bytes -> (key, stored row) -> bool
                 -> bytes (`terms.py`)

A sieve may leave rows out and never decides alone: the reader of a scan lays its own writes over what comes and
evaluates the whole condition again. So a row may always be sent, and is where its condition raises an error: the
serving node meets the row itself, if its transaction sees it at all, and the client gets the error as ever.
A row may be left out where the condition is false or NULL, which is decided by the functions that the serving node
would use (`execute.expressions`), over the same bytes of the row, read by the table's own layouts, which travel along.
What else a condition takes is a value by then: parameters, columns of enclosing queries, now() and other functions that
are stable. Which functions of a row's columns are evaluated there is a list (`pushable.py`): immutable, in need of
nothing but their arguments, and quick.

Of a conjunction the first parts are sifted by, up to the first that cannot be: so no row is left out by a part that is
evaluated only after another one, which may fail or be volatile.
"""
