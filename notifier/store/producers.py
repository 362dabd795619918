"""Finds producers whose notifications came without proof."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine, TextClause, text

from notifier.domain.producers import ProducerProof
from notifier.store.engine import transaction
from notifier.store.schema.partitions import first_id

#: Number of a producer's newest notifications that are looked at.
NEWEST = 100


def unproven_producers(engine: Engine, since: datetime) -> list[str]:
    """Names of producers with newest notifications since then that came without proof, sorted."""
    values = {"since": first_id(since), "newest": NEWEST, "none": ProducerProof.NONE}
    with transaction(engine) as connection:
        return list(connection.execute(_UNPROVEN, values).scalars())


# Steps from name to name by the index: one step for each producer, not for each notification.
_UNPROVEN: TextClause = text("""
WITH RECURSIVE names AS (
  SELECT min(producer) AS name FROM messages
  UNION ALL
  SELECT (SELECT min(producer) FROM messages WHERE producer > names.name) FROM names WHERE name IS NOT NULL
)
SELECT name FROM names WHERE EXISTS (
  SELECT FROM (
    SELECT proof FROM messages WHERE producer = names.name AND id >= :since ORDER BY id DESC LIMIT :newest
  ) AS newest WHERE proof = :none
) ORDER BY name
""")
