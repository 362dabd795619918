"""Keeps libraries from importing packages for features that we do not use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(module: str) -> Iterator[None]:
    """While the block lasts, libraries that are imported do without an optional package.

    For the start of a program: imports in other threads during the block do without the package as well.
    """
    if module in sys.modules:
        yield  # importing it has already cost its time
        return
    # The documented way to mark a module that must not be imported.
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
