"""The HTTP API: one more face of the intake, the operations and the record. No rule lives here.

Read in this order: `app` (what there is), `sending`, `reading`, `acting`, `looking`, `watching`, `webhooks` (the
routes), then `gate` (who may), `problems` (how it says no) and `desk` (what it works with).
"""
