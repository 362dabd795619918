"""What libraries import for features that we do not use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(module: str) -> Iterator[None]:
    """Let libraries that are imported meanwhile go without a package that they use if it is there.

    For the beginning of a program: what another thread imports meanwhile goes without it, too.
    """
    if module in sys.modules:
        yield  # its time is spent
        return
    # The documented mark of what must not be imported.
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
