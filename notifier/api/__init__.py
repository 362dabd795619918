"""The HTTP API. It holds no rules of its own: those are in the intake, the operations and the store.

Read in this order: `app` (which routes there are), `routes/` (what each does), `auth` (who may call it), `errors`
and `dependencies` (what the routes work with).
"""
