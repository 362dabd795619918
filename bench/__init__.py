"""How fast the service is, and how fast what people would use instead is: measured side by side, in one run.

`make bench`, or `python -m bench --help`. What is measured, and how: docs/explanation/performance.md.
"""
