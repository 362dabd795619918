"""The queries that the documentation shows run on the newest tables."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import Engine

from notifier.client.outbox import create_table
from notifier.store.engine import transaction

DOCS = Path(__file__).parents[2] / "docs"


def test_every_query_of_the_documentation_runs(engine: Engine) -> None:
    create_table(engine)
    blocks = [
        block
        for page in sorted(DOCS.rglob("*.md"))
        for block in re.findall(r"^```sql\n(SELECT .*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    ]
    assert len(blocks) > 5
    for block in blocks:
        with transaction(engine) as connection:
            connection.exec_driver_sql(block)
