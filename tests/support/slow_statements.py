"""A database that takes too long for large statements, without anybody having to wait."""

from __future__ import annotations

from sqlalchemy import Engine

from notifier.store.engine import transaction

_FUNCTION = """
CREATE FUNCTION too_slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT count(*) FROM changed) > {above} THEN
    RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = 'query_canceled';
  END IF;
  RETURN NULL;
END $$
"""


def make_slow(engine: Engine, event: str, *, above: int) -> None:
    """Statements that change more than `above` rows of `states` end at once, as if by their time-out."""
    with transaction(engine) as connection:
        connection.exec_driver_sql(_FUNCTION.format(above=above))
        connection.exec_driver_sql(
            f"CREATE TRIGGER too_slow AFTER {event} ON states REFERENCING NEW TABLE AS changed "
            "FOR EACH STATEMENT EXECUTE FUNCTION too_slow()"
        )
