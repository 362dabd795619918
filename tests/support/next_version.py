"""Imitates the next version as the database sees it: further revisions, written as they would be."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from notifier.config.settings import bundled

#: The tables through which every message passes: the hardest to lock.
_TABLES = ("messages", "states", "attempts", "events", "idempotency_keys")
#: The newest of these revisions.
NEXT_REVISION = f"next_{_TABLES[-1]}"

_TEXT = '''"""What the next version adds. Revision: {revision}, after {before}"""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("{table}_notes", sa.Column("note", sa.Text(), nullable=False))
    op.create_index("ix_{table}_notes", "{table}_notes", ["note"])
    op.add_column("{table}", sa.Column("next_note", sa.Text(), nullable=True))
    op.add_column("{table}", sa.Column("next_count", sa.Integer(), server_default=sa.text("0"), nullable=False))
'''


def write_next_revisions(folder: Path) -> Path:
    """Write a folder for `upgrade(…, more_revisions=)`. Its revisions follow the newest one, whichever that is."""
    folder.mkdir()
    config = Config()
    config.set_main_option("script_location", str(bundled("migrations")))
    before = ScriptDirectory.from_config(config).get_current_head()
    for table in _TABLES:
        text = _TEXT.format(revision=f"next_{table}", before=before, table=table)
        (folder / f"{table}.py").write_text(text, "utf-8")
        before = f"next_{table}"
    return folder
