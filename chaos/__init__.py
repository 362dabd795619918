"""The fault suite: the whole service under load while things are killed, stopped, cut, filled and flooded.

`make chaos` runs it (`make chaos SHORT=1` a short form). docs/explanation/faults.md explains what it does and how
its table is read.
"""
