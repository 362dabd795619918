"""`notifier demo`: runs the whole service in a scratch folder, sends the shop's examples through it, and gives a
verdict.

`scenario` says what is published and how each message must end, `runner` runs it, `arrivals` opens what arrived.
"""

from notifier.dev.demo.runner import DemoOutcome, DemoReport, run_demo
from notifier.dev.demo.scenario import Planned

__all__ = ["DemoOutcome", "DemoReport", "Planned", "run_demo"]
