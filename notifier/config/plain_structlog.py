"""structlog without rich, which it would import for coloured traces, which we never write.

Importing rich costs an eighth of the start of a command, and every program some megabytes. structlog does without
what cannot be imported.
"""

from __future__ import annotations

import sys

_RICH = "rich"

if _RICH in sys.modules:
    import structlog
else:
    # The documented mark of a module that must not be imported. Nothing else imports it now: no thread runs yet.
    sys.modules[_RICH] = None  # type: ignore[assignment]
    try:
        import structlog
    finally:
        del sys.modules[_RICH]

__all__ = ["structlog"]
