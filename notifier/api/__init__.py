"""The HTTP API. It has no rules of its own: they are in the intake, the operations and the store.

Read in this order: `app` (which routes exist), `routes/` (what each does), `auth` (who may call it), `errors` and
`dependencies` (what the routes use).
"""
