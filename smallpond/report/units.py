"""Numbers as people read them."""

from __future__ import annotations


def count(value: float) -> str:
    """Such as "950", "12.3k", "4.56M"."""
    return _scaled(value, 1000, ("", "k", "M", "G", "T"))


def size(value: float) -> str:
    """Bytes, such as "950 B", "12.3 MB"."""
    return _scaled(value, 1000, (" B", " kB", " MB", " GB", " TB"))


def duration(seconds: float) -> str:
    """Such as "42 ms", "3.2 s", "2 min 05 s", "1 h 03 min"."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def _scaled(value: float, base: float, units: tuple[str, ...]) -> str:
    scaled, power = float(value), 0
    while abs(scaled) >= base - 0.5 and power < len(units) - 1:
        scaled /= base
        power += 1
    digits = 0 if power == 0 else 2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0
    return f"{scaled:.{digits}f}{units[power]}"
