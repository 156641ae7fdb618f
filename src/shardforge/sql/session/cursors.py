"""Rows taken a few at a time: portals with a row limit and cursors of DECLARE."""

from __future__ import annotations

from collections.abc import AsyncIterator

from shardforge.errors import QueryError
from shardforge.sql.bind.tree import OutputColumn
from shardforge.sql.session.outcome import Row


class RowSource:
    """A forward-only stream of rows that can be read in any portions."""

    def __init__(
        self, columns: tuple[OutputColumn, ...], batches: AsyncIterator[list[Row]]
    ) -> None:
        self.columns = columns
        self._batches = batches
        self._rest: list[Row] = []
        self.exhausted = False

    async def fetch(self, count: int) -> list[Row]:
        """Up to `count` rows (all for 0); fewer means that there are no more."""
        rows = self._rest
        while not self.exhausted and (count == 0 or len(rows) < count):
            batch = await anext(self._batches, None)
            if batch is None:
                self.exhausted = True
            else:
                rows = rows + batch
        if count == 0 or len(rows) <= count:
            self._rest = []
            return rows
        self._rest = rows[count:]
        return rows[:count]

    @property
    def finished(self) -> bool:
        """Whether every row has been fetched."""
        return self.exhausted and not self._rest

    async def close(self) -> None:
        """Give up what the stream holds."""
        self._rest = []
        self.exhausted = True
        close = getattr(self._batches, "aclose", None)
        if close is not None:
            await close()


class Cursor:
    """A cursor of DECLARE: its rows are kept as they are fetched when it is scrollable or held.

    `position` is the row that it stands on, from 1; 0 is before the first, `len + 1` after the last.
    """

    def __init__(
        self, name: str, source: RowSource, *, scroll: bool, hold: bool, statement: str
    ) -> None:
        self.name = name
        self.columns = source.columns
        self.statement = statement
        self.hold = hold
        self.scroll = scroll
        self._source = source
        self._rows: list[Row] = []
        self._position = 0

    async def materialize(self) -> None:
        """Fetch everything: a held cursor outlives its transaction."""
        self._rows += await self._source.fetch(0)

    async def _row(self, number: int) -> Row | None:
        if number < 1:
            return None
        if number > len(self._rows) and not self._source.finished:
            self._rows += await self._source.fetch(number - len(self._rows))
        return self._rows[number - 1] if number <= len(self._rows) else None

    async def forward(self, count: int | None) -> list[Row]:
        """The next `count` rows, or all (None)."""
        if count is None:
            await self.materialize()
            count = len(self._rows)
        rows: list[Row] = []
        while len(rows) < count:
            row = await self._row(self._position + 1)
            if row is None:
                self._position = len(self._rows) + 1
                break
            self._position += 1
            rows.append(row)
        return rows

    async def backward(self, count: int | None) -> list[Row]:
        """The previous `count` rows, nearest first; 55000 unless declared SCROLL."""
        self._require_scroll()
        rows: list[Row] = []
        while count is None or len(rows) < count:
            row = await self._row(self._position - 1)
            self._position = max(self._position - 1, 0)
            if row is None:
                break
            rows.append(row)
        return rows

    async def absolute(self, number: int) -> list[Row]:
        """The row of that number; negative counts from the end."""
        if number < 0:
            await self.materialize()
            number = len(self._rows) + 1 + number
        if number <= self._position:
            self._require_scroll()
        row = await self._row(number)
        self._position = min(max(number, 0), len(self._rows) + 1)
        return [] if row is None else [row]

    async def relative(self, offset: int) -> list[Row]:
        """The row `offset` away from the current one."""
        return await self.absolute(max(self._position + offset, 0))

    def _require_scroll(self) -> None:
        if not self.scroll:
            raise QueryError(
                "cursor can only scan forward",
                "55000",
                hint="Declare it with SCROLL option to enable backward scan.",
            )

    async def close(self) -> None:
        """Give up the rows."""
        self._rows = []
        await self._source.close()


async def once(rows: list[Row]) -> AsyncIterator[list[Row]]:
    """One batch."""
    yield rows
