"""What `tests/conftest.py` promises to every test."""

from __future__ import annotations

import logging
from uuid import uuid4


def test_a_logger_made_by_a_thread_does_not_stop_who_walks_through_them() -> None:
    """pytest does this loop around each test; a thread that imports something makes loggers meanwhile."""
    for number, _ in enumerate(logging.root.manager.loggerDict.values()):
        if number < 3:
            logging.getLogger(f"made-while-walking-{uuid4()}")
    assert number >= 2
