"""Measures how fast the service is, side by side with what people would use instead, in one run.

`make bench`, or `python -m bench --help`. What is measured, and how: docs/explanation/performance.md.
"""
