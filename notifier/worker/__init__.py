"""The Celery worker and Beat. No code outside this room imports Celery.

`celery -A notifier.worker …` works; Flower and `celery inspect` use it.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`app` for `celery -A notifier.worker`, built from the environment at its first use."""
    if name != "app":
        raise AttributeError(name)
    from notifier.worker.app import app_from_environment

    return app_from_environment()
