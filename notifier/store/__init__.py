"""The record, in Postgres: `models` (tables), `engine` (connections, migrations), `partitions` (upkeep),
`ledger` (every write) and `audit` (every read). No SQL lives anywhere else."""
