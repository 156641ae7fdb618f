"""Random values as clauses 2.1.6 and 4.3 define them."""

from __future__ import annotations

import string
from random import Random

_SYLLABLES = ("BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING")
_LETTERS = string.ascii_letters + string.digits
LAST_NAMES = 1000
"""Numbers of last names; the first customers of a district have one each."""
_LAST_A = 255
_CUSTOMER_A = 1023
_ITEM_A = 8191


def last_name(number: int) -> str:
    """The name of a number below 1000 (clause 4.3.2.3)."""
    return "".join(_SYLLABLES[digit] for digit in (number // 100, number // 10 % 10, number % 10))


class Values:
    """A source of random values with the constants of one load or run (clause 2.1.6.1)."""

    def __init__(self, random: Random, *, load: int | None = None) -> None:
        """`load`: the last names' constant at the load, from which that of a run must differ by so and so much."""
        self.random = random
        self.last_constant = random.randint(0, _LAST_A)
        while load is not None and not _far_enough(abs(self.last_constant - load)):
            self.last_constant = random.randint(0, _LAST_A)
        self._customer_constant = random.randint(0, _CUSTOMER_A)
        self._item_constant = random.randint(0, _ITEM_A)

    def _skewed(self, a: int, constant: int, low: int, high: int) -> int:
        either = self.random.randint(0, a) | self.random.randint(low, high)
        return (either + constant) % (high - low + 1) + low

    def customer(self, customers: int) -> int:
        """A customer's id."""
        return self._skewed(_CUSTOMER_A, self._customer_constant, 1, customers)

    def item(self, items: int) -> int:
        """An item's id."""
        return self._skewed(_ITEM_A, self._item_constant, 1, items)

    def last_name(self, customers: int) -> str:
        """The last name of some customer of a district."""
        high = min(customers, LAST_NAMES) - 1
        return last_name(self._skewed(_LAST_A, self.last_constant, 0, high))

    def text(self, low: int, high: int) -> str:
        """Letters and digits, so many."""
        return "".join(self.random.choices(_LETTERS, k=self.random.randint(low, high)))

    def digits(self, count: int) -> str:
        """Digits only."""
        return "".join(self.random.choices(string.digits, k=count))

    def zip(self) -> str:
        """A code of nine digits (clause 4.3.2.7)."""
        return self.digits(4) + "11111"

    def original(self, low: int, high: int) -> str:
        """Text that contains ORIGINAL in one of ten cases (clause 4.3.3.1)."""
        text = self.text(low, high)
        if self.random.random() >= 0.1:
            return text
        at = self.random.randint(0, len(text) - 8)
        return text[:at] + "ORIGINAL" + text[at + 8 :]

    def rate(self, high: int) -> str:
        """A tax or discount of up to `high` ten-thousandths."""
        return f"{self.random.randint(0, high) / 10000:.4f}"

    def cents(self, low: int, high: int) -> str:
        """An amount from so many cents to so many."""
        return f"{self.random.randint(low, high) / 100:.2f}"


def _far_enough(delta: int) -> bool:
    return 65 <= delta <= 119 and delta not in (96, 112)
