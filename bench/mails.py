"""The mail that is sent: the same for all subjects, rendered from the same template."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
TEMPLATE = "notice"
SENDER = "Corner Shop <hello@shop.example.com>"

_ITEMS = [
    {"title": "Ground coffee, 250 g", "count": 2},
    {"title": "Enamel mug, blue", "count": 1},
    {"title": "Oat biscuits", "count": 3},
]


def context(number: int) -> dict[str, Any]:
    """The variables of mail `number`: no two mails are the same."""
    return {
        "name": f"Ada Okafor {number}",
        "order": f"C-{number:06d}",
        "url": f"https://track.example.com/PX{number:09d}",
        "items": _ITEMS,
    }


def recipient(number: int, *, label: str = "load") -> str:
    """A recipient, different for each mail. It contains the time at which it was made, for `bench.timed_sink`."""
    return f"{label}.t{time.monotonic_ns()}.n{number}@bench.example.com"
