"""The outbox table, version by version."""
