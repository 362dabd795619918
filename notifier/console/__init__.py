"""The console: pages for operators, support and auditors, at `/` of the API process.

`app` adds it to the API; `session` says who is signed in and refuses forms of other sites; `pages` renders the
templates in `templates/`; `routes/` has a file for each page. The console has no rules of its own: pages call
`operations`, `store` and `feedback`, as the API and the command line do.
"""
