"""Sizes as people write them: 50GiB, 500MB, a number of bytes, or 10% of something.

GB is 10^9 bytes and GiB is 2^30 bytes (IEC 80000-13), which is also how Incus reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import CowError

_DECIMAL = ("kB", "MB", "GB", "TB", "PB", "EB")
_BINARY = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
UNITS = {
    "": 1,
    "B": 1,
    **{unit: 1000**power for power, unit in enumerate(_DECIMAL, start=1)},
    **{unit: 1024**power for power, unit in enumerate(_BINARY, start=1)},
}
_FORM = r"(?P<number>[0-9]{1,24}(?:\.[0-9]{1,24})?) ?(?P<unit>%|[A-Za-z]*)"
_BY_FOLDED_UNIT = {unit.casefold(): factor for unit, factor in UNITS.items()}


@dataclass(frozen=True, order=True)
class Size:
    """A number of bytes."""

    bytes: int

    @classmethod
    def parse(cls, text: str | int, whole: Size | None = None) -> Size:
        """Read a size; `whole` is what a percentage is of. Fractions of a byte are cut off.

        Raises CowError when the text is not a size, or is a percentage and there is no whole.
        """
        matched = re.fullmatch(_FORM, str(text).strip(), re.ASCII)
        if matched is None:
            raise CowError(_not_a_size(text))
        units, _, decimals = matched["number"].partition(".")
        # The number as a fraction, exact; the module of that name takes long to load.
        number, divisor, unit = int(units + decimals), 10 ** len(decimals), matched["unit"]
        if unit == "%":
            return cls(number * _whole_of(whole, text, too_much=number > 100 * divisor) // (100 * divisor))
        factor = _BY_FOLDED_UNIT.get(unit.casefold())
        if factor is None:
            raise CowError(_not_a_size(text))
        return cls(number * factor // divisor)

    def __str__(self) -> str:
        """Give the shortest exact form in binary units, which `parse` reads back to the same size."""
        for unit in reversed(_BINARY):
            if self.bytes and self.bytes % UNITS[unit] == 0:
                return f"{self.bytes // UNITS[unit]}{unit}"
        return f"{self.bytes}B"

    def rounded(self) -> str:
        """Give it for people, with one decimal: 13.4 GiB."""
        for unit in reversed(_BINARY):
            if self.bytes >= UNITS[unit]:
                return f"{self.bytes / UNITS[unit]:.1f} {unit}"
        return f"{self.bytes} B"

    def floor(self, granularity: Size) -> Size:
        """Round down to a multiple."""
        return Size(self.bytes - self.bytes % granularity.bytes)


GIB = Size(1024**3)


def whole_mib(size: int) -> int:
    """Return the next whole MiB: devices and files have no odd sizes."""
    return -(-size >> 20 << 20)


def _whole_of(whole: Size | None, text: str | int, *, too_much: bool) -> int:
    if whole is None:
        raise CowError(f"The size {text} is a percentage, but there is nothing that it could be of. Give 50GiB, say.")
    if too_much:
        raise CowError(f"The size {text} is more than the whole. Give at most 100%.")
    return whole.bytes


def _not_a_size(text: str | int) -> str:
    return f"{text!r} is not a size. Write a number with a unit, such as 50GiB, 500MB or 10%, or a number of bytes."
