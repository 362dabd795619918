"""The console: pages for operators, support and auditors, at `/` of the API process.

`app` adds it to the API; `session` says who is there and refuses forms of other sites; `pages` renders the
templates of `templates/`; `routes/` has a file for each page. No rule lives here: pages call `operations`, `store`
and `feedback`, as the API and the command line do.
"""
