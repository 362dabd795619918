"""Checks of `notifier doctor` on upkeep, the monthly partitions that it creates, and heartbeats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from notifier.cli.check_result import Check

if TYPE_CHECKING:
    from notifier.bootstrap import Services
    from notifier.store.upkeep import UpkeepState


def check_partitions(services: Services) -> Iterator[Check]:
    """Checks the partitions of this month and the next, without which rows go to the default partition; and what
    is in that."""
    from notifier.store.schema.partitions import missing_partitions, strays

    missing = missing_partitions(services.engine)
    if missing:
        detail = f"missing: {', '.join(missing)}; rows of these months go to the default partitions, and are found"
        yield Check("partitions", False, detail, "notifier db partitions --now, as the owner of the tables")
    else:
        yield Check("partitions", True, "exist for this month and the next")
    for one in strays(services.engine):
        where = "after all months" if one.is_ahead else "before all months"
        detail = (
            f"{one.rows} rows of {one.table} are in the default partition, of ids that lie {where}: "
            f"{one.first_at:%Y-%m-%d} to {one.last_at:%Y-%m-%d}"
        )
        fix = "nothing is lost or delayed: a clock was wrong when their ids were made; check that it is right now"
        yield Check("default partition", True, detail, fix)


def check_upkeep(services: Services) -> Iterator[Check]:
    from notifier.store.upkeep import UpkeepRepository

    is_reporting = bool(services.settings.report_addresses)
    states = [
        state for state in UpkeepRepository(services.engine).states() if is_reporting or state.step != "report"
    ]
    late = [state for state in states if state.is_late]
    for state in late:
        fix = "keep `notifier beat` and a worker running: late steps are done within minutes"
        if state.has_failed:
            fix = f"fix the cause; it is retried every hour. In the worker log: upkeep.failed, step {state.step}"
        yield Check("upkeep", False, _in_words(state), fix)
    if not states:
        yield Check("upkeep", True, "nothing has run yet: it starts a minute after `notifier beat`")
    elif not late:
        yield Check("upkeep", True, f"{len(states)} steps, each done within the last day")


def check_heartbeats(services: Services) -> Iterator[Check]:
    """Whether the heartbeats in notifier.toml are sent."""
    states = services.heartbeats.states()
    late = [one for one in states if one.is_late]
    for one in late:
        last = "none was sent" if one.last_sent_at is None else f"last sent {one.last_sent_at:%Y-%m-%d %H:%M} UTC"
        fix = "notifier search --producer notifier-heartbeat; if it finds none: heartbeat.refused in the logs"
        yield Check("heartbeats", False, f"{one.channel} {one.lane} is late: {last}", fix)
    if states and not late:
        yield Check("heartbeats", True, f"{len(states)}, none is late")


def _in_words(state: UpkeepState) -> str:
    if state.hours_since_success is None:
        success = f"{state.step} has never succeeded"
    else:
        days = int(state.hours_since_success // 24)
        success = f"{state.step}: last success {days} day{'s' if days != 1 else ''} ago"
    return f"{success}; the last run failed: {state.failure}" if state.has_failed else success
