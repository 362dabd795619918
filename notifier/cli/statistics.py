"""`notifier statistics`: what was sent on each day, even long after the notifications are deleted."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import BadParameter, Option

from notifier.cli.arguments import read_choices, read_day
from notifier.cli.context import wiring
from notifier.cli.options import AsJson
from notifier.cli.output import count, print_list, warn
from notifier.domain.csv_rows import write_rows

if TYPE_CHECKING:
    from notifier.store.daily_statistics import StatisticsKey, StatisticsRow

#: Maximum number of missing days that are named.
_NAMED = 7

_DAY = timedelta(days=1)


def _day(text: str) -> Any:
    return Option(parser=read_day, metavar="DAY", help=text)


def statistics(
    context: typer.Context,
    since: Annotated[Any, _day("First day: 2026-11-22, or 30d (ago).")] = "7d",
    until: Annotated[Any, _day("The day after the last one; written like --since.")] = None,
    by: Annotated[
        str, Option(help="What to count by: day, channel, lane, template, provider, producer, status.")
    ] = "day,channel,status",
    as_csv: Annotated[bool, Option("--csv", help="Write CSV and nothing else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how many notifications each day had, by the time in their ids, and what became of them.

    Days follow NOTIFIER_TIMEZONE, and are counted at night, without notifications of test keys. "10 s" is the
    share of the notifications to be sent that were sent within ten seconds of being accepted or due.
    """
    from notifier.store.daily_statistics import StatisticsKey

    keys = read_choices(StatisticsKey, by, "--by")
    if not keys:
        raise BadParameter("name one or more of what is counted by", param_hint="--by")
    if as_csv and as_json:
        raise BadParameter("give one of the two", param_hint="--csv / --json")
    with wiring(context).services() as services:
        today = services.statistics.today()
        days = [today - given if isinstance(given, timedelta) else given for given in (since, until)]
        report = services.statistics.report(days[0], days[1] or today + _DAY, keys)
    if as_csv:
        cells = (map(_cell, _values(row)) for row in report.rows)
        sys.stdout.write(write_rows([_headings(keys), *cells]))
    else:
        _print_rows(report.rows, keys, as_json=as_json)
    if report.missing:
        named = ", ".join(map(str, report.missing[:_NAMED]))
        more = f" and {len(report.missing) - _NAMED} more" if len(report.missing) > _NAMED else ""
        warn(f"{count(len(report.missing), 'day')} not counted: {named}{more}")


def _headings(keys: list[StatisticsKey]) -> list[str]:
    return [*map(str, keys), "count", "sent_seconds_p95", "share_within_10s"]


def _values(row: StatisticsRow) -> tuple[Any, ...]:
    return (*row.values, row.count, row.sent_seconds_p95, row.share_within_10s)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _print_rows(rows: list[StatisticsRow], keys: list[StatisticsKey], *, as_json: bool) -> None:
    columns = {str(key): lambda row, place=place: row.values[place] for place, key in enumerate(keys)}
    print_list(
        rows,
        {
            **columns,
            "count": lambda row: row.count,
            "p95 (s)": lambda row: _rounded(row.sent_seconds_p95),
            "10 s": lambda row: None if row.share_within_10s is None else f"{row.share_within_10s:.1%}",
        },
        as_json=as_json,
        noun="row",
        empty="nothing was counted in that time: a day is counted in the night after it",
        to_json=lambda row: dict(zip(_headings(keys), _values(row), strict=True)),
    )


def _rounded(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.1f}"
