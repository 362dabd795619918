"""The record, in Postgres, and the only SQL.

`engine` connects, `ledger` and `acceptance` write deliveries, `search` reads, `operator_actions` holds what
operators do, and `schema/` has the tables, partitions and revisions.
"""
