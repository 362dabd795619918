"""The API key of `notifier up`, for the console and for producers. It stays the same from run to run."""

from __future__ import annotations

from pathlib import Path

from notifier.dev.machine import write_private
from notifier.operations.api_keys import ApiKeys, Grants, Scope
from notifier.store.api_keys import ApiKeyRepository
from notifier.store.engine import make_engine
from notifier.store.operator_actions import OperatorActions

_FILE = "console-key"
#: Sending over HTTP requires a producer; this is the one in the documentation's examples.
_PRODUCER = "shop"


def console_key(database_url: str, data_dir: Path) -> str:
    """The key in a file of `data_dir` that only its owner can read. A new key is made if there is none, or it is
    not valid.

    It has every scope, and sends as the producer in the documentation's examples.
    """
    path = data_dir / _FILE
    engine = make_engine(database_url, pool_size=1, application="notifier up", guarded=False)
    try:
        keys = ApiKeys(ApiKeyRepository(engine), OperatorActions(engine))
        kept = path.read_text("ascii", errors="replace").strip() if path.is_file() else ""
        holder = keys.holder(kept) if kept else None
        if holder is not None and holder.producer == _PRODUCER:
            return kept
        made = keys.create(Grants((Scope.ADMIN,), "up", producer=_PRODUCER), operator="notifier up")
        write_private(path, made.token + "\n")
        return made.token
    finally:
        engine.dispose()
