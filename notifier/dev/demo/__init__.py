"""`notifier demo`: the whole service on a scratch folder, the shop's examples through it, and a verdict.

`scenario` says what is published and how each must end, `runner` does it, `arrivals` opens what arrived.
"""

from notifier.dev.demo.runner import DemoOutcome, DemoReport, run_demo

__all__ = ["DemoOutcome", "DemoReport", "run_demo"]
