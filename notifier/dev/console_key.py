"""The key with which people sign in to the console of `notifier up`: it stays the same from run to run."""

from __future__ import annotations

from pathlib import Path

from notifier.operations.api_keys import ApiKeys, Grants, Scope
from notifier.store.api_keys import ApiKeyRepository
from notifier.store.engine import make_engine
from notifier.store.operator_actions import Operating

_FILE = "console-key"


def console_key(database_url: str, data_dir: Path) -> str:
    """Kept in a file of `data_dir` that its owner alone can read; made if there is none, or it is not valid."""
    path = data_dir / _FILE
    engine = make_engine(database_url, pool_size=1, application="notifier up", guarded=False)
    try:
        keys = ApiKeys(ApiKeyRepository(engine), Operating(engine))
        kept = path.read_text(encoding="ascii").strip() if path.exists() else ""
        if kept and keys.holder(kept) is not None:
            return kept
        made = keys.create(Grants((Scope.ADMIN,), "up"), operator="notifier up")
        path.touch(mode=0o600)
        path.write_text(made.token + "\n", encoding="ascii")
        return made.token
    finally:
        engine.dispose()
