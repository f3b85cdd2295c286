"""Format and parse sizes in bytes."""

import math
import re

from ..errors import RequestError

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def readable(size: float) -> str:
    """Format bytes: "12.9 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def parse_bytes(text: str, argument: str) -> int:
    """Parse "24GB", "24 GiB", "8000MB" or a large plain number; raise RequestError for anything else."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?|)b?\s*", text, re.IGNORECASE)
    size = float(match[1]) * _UNITS[match[2].lower()] if match else math.nan
    if not 1 <= size < 2**62:
        raise RequestError(argument, text, "must be a size, such as 24GB")
    if match and not match[2] and size < 1e6:
        raise RequestError(argument, text, f"is {text.strip()} bytes; write {match[1]}GB if those are meant")
    return int(size)
