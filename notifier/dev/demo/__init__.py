"""`notifier demo`: the whole service on a scratch folder, the shop's examples through it, and a verdict.

`scenario` says what is published and how each must end, `running` does it, `checking` opens what arrived.
"""

from notifier.dev.demo.running import DemoOutcome, DemoReport, run_demo

__all__ = ["DemoOutcome", "DemoReport", "run_demo"]
