"""The HTTP API: one more face of the intake, the operations and the record. No rule lives here.

Read in this order: `app` (which routes there are), `routes/` (what each does), `auth` (who may call it), `errors`
(how the API says no) and `dependencies` (what the routes work with).
"""
