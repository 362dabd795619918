"""The tables, their partitions and their upgrades."""
