"""Numbers as people read them: three digits and a unit."""

from __future__ import annotations

_COUNTS = ("", "k", "M", "G", "T")
_SIZES = (" B", " kB", " MB", " GB", " TB")
_SHORT = (("ms", 1e-3), ("us", 1e-6))


def count(value: float) -> str:
    """Such as "950", "12.3k", "4.56M"."""
    return _scaled(value, _COUNTS)


def size(value: float) -> str:
    """Bytes, such as "950 B", "12.3 MB"."""
    return _scaled(value, _SIZES)


def duration(seconds: float) -> str:
    """Such as "250 us", "42.0 ms", "3.20 s", "2 min 05 s", "1 h 03 min"."""
    if seconds >= 59.95:
        whole = round(seconds)
        if whole < 3600:
            return f"{whole // 60} min {whole % 60:02d} s"
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if seconds >= 0.9995:
        return f"{_three_digits(seconds)} s"
    for unit, length in _SHORT:
        if seconds >= 0.9995 * length:
            return f"{_three_digits(seconds / length)} {unit}"
    return "0 s"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    if round(value) < 1000:
        return f"{round(value)}{units[0]}"
    scaled = value / 1000
    for unit in units[1:-1]:
        if scaled < 999.5:
            return f"{_three_digits(scaled)}{unit}"
        scaled /= 1000
    return f"{_three_digits(scaled)}{units[-1]}"


def _three_digits(value: float) -> str:
    """A number of at least one: "1.23", "12.3", "123"."""
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"
