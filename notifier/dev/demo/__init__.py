"""`notifier demo`: the whole service on a scratch folder, the shop's examples through it, and a verdict.

`scenario` says what is published and how each must end, `runner` does it, `arrivals` opens what arrived.
"""

from notifier.dev.demo.runner import DemoOutcome, DemoReport, run_demo
from notifier.dev.demo.scenario import Planned

__all__ = ["DemoOutcome", "DemoReport", "Planned", "run_demo"]
