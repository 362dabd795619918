"""Statistics of days on a real Postgres: right in every zone, counted again, and kept when rows go."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from bench import past
from notifier.bootstrap import Services
from notifier.config.limits import Retention
from notifier.config.settings import Settings
from notifier.domain.local_days import day_bounds
from notifier.domain.message import MAX_AGE, time_of_id
from notifier.domain.statuses import Channel
from notifier.operations.retention import RetentionJob
from notifier.operations.statistics import RECOUNTED_DAYS, Statistics
from notifier.store.daily_statistics import NOT_TO_BE_SENT, StatisticsKey, StatisticsRepository
from notifier.store.engine import make_engine, transaction
from notifier.store.retention import RetentionRepository
from tests.integration.test_retention import Past
from tests.unit.cli.commandline import CommandLine

UTC_ZONE = ZoneInfo("UTC")
EVERYTHING = tuple(StatisticsKey)
SHORT = (StatisticsKey.DAY, StatisticsKey.CHANNEL, StatisticsKey.STATUS)
#: In these the clocks of New York are changed.
MONTHS = (3, 11)
PAST_ROWS = 6000
#: Days ago that are counted once a week.
OLDER = (35, 28, 21, 14)


class World:
    def __init__(self, url: str) -> None:
        self.past = Past(url)
        self.repository = StatisticsRepository(self.past.engine)
        self.statistics = self.with_kept_from(lambda: None)
        self.today = self.statistics.today()

    def with_kept_from(self, kept_from: Callable[[], datetime | None]) -> Statistics:
        return Statistics(self.repository, UTC_ZONE, kept_from)

    def count(self, days: int) -> bool:
        """Count the day so long ago."""
        day = self.today - timedelta(days=days)
        return self.repository.count_day(day, day_bounds(day, UTC_ZONE))

    def rows(self) -> list[tuple[Any, ...]]:
        """(how many days ago, channel, status, count) of all that was counted."""
        report = self.statistics.report(self.today - timedelta(days=100), self.today, SHORT)
        return [((self.today - row.values[0]).days, *row.values[1:], row.count) for row in report.rows]  # type: ignore[operator]

    def retain(self, days: int) -> RetentionJob:
        """Delete older mails, one by one because texts are kept longer, and return what did so."""
        tables = {
            Channel.EMAIL: Retention(drop_after_days=days),
            Channel.SMS: Retention(drop_after_days=400),
        }
        job = RetentionJob(RetentionRepository(self.past.engine), tables)
        job.run()
        return job


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = World(database_url)
    yield made
    made.past.engine.dispose()


def zeros(*days: int) -> list[tuple[Any, ...]]:
    return [(day, "", "", 0) for day in days]


def test_every_day_is_counted_as_its_rows_are(database_url: str) -> None:
    past.fill(database_url, PAST_ROWS)
    engine = make_engine(database_url)
    repository = StatisticsRepository(engine)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE states SET sent_at = sent_at + (hashtext(id::text) & 1023) * interval '12 milliseconds'"
        )
        found = connection.execute(
            "SELECT id, channel, lane, template, coalesce(provider, ''), producer, status,"
            " CAST(extract(epoch FROM sent_at - accepted_at) AS float8) FROM notifications"
        ).fetchall()
    for name in ("Asia/Shanghai", "America/New_York"):
        zone = ZoneInfo(name)
        groups: defaultdict[tuple[Any, ...], list[float | None]] = defaultdict(list)
        for id_, *words, seconds in found:
            groups[(time_of_id(id_).astimezone(zone).date(), *words)].append(seconds)
        # The first and the last day of the past are no whole ones, and may be in one of the months.
        days = sorted({key[0] for key in groups})[1:-1]
        days = [day for day in days if day.month in MONTHS]
        assert len(days) > 50
        with transaction(engine) as session:
            session.execute(text("TRUNCATE daily_statistics"))
        for day in days:
            assert repository.count_day(day, day_bounds(day, zone))
        counted = {
            row.values: (row.count, row.sent_seconds_p95, row.share_within_10s)
            for row in repository.rows(days[0], days[-1] + timedelta(days=1), EVERYTHING)
        }
        expected = {
            key: (len(seconds), percentile([one for one in seconds if one is not None]), share([(key, seconds)]))
            for key, seconds in groups.items()
            if key[0] in days
        }
        assert counted == expected
        check_lanes(repository, groups, days)
    check_retention(engine, days, zone)
    engine.dispose()


def check_lanes(
    repository: StatisticsRepository, groups: Mapping[tuple[Any, ...], list[Any]], days: list[date]
) -> None:
    """The share of each lane and day is that of its rows."""
    by_lane = repository.rows(days[0], days[-1] + timedelta(days=1), (StatisticsKey.DAY, StatisticsKey.LANE))
    assert len({row.share_within_10s for row in by_lane}) > 10
    for row in by_lane:
        parts = [(key, one) for key, one in groups.items() if (key[0], key[2]) == row.values]
        assert row.share_within_10s == pytest.approx(share(parts))


def check_retention(engine: Engine, days: list[date], zone: ZoneInfo) -> None:
    """Most of what was counted is deleted, and the counts stay."""
    repository = StatisticsRepository(engine)
    before = repository.rows(days[0], days[-1] + timedelta(days=1), EVERYTHING)
    kept = Retention(drop_after_days=30)
    RetentionJob(RetentionRepository(engine), {Channel.EMAIL: kept, Channel.SMS: kept}).run()
    with transaction(engine) as session:
        left = session.execute(text("SELECT count(*) FROM messages")).scalar_one()
    assert left < PAST_ROWS / 2
    for day in days:
        repository.count_day(day, day_bounds(day, zone))
    assert repository.rows(days[0], days[-1] + timedelta(days=1), EVERYTHING) == before


def share(groups: list[tuple[tuple[Any, ...], list[float | None]]]) -> float | None:
    """Of what was to be sent, what was sent within ten seconds."""
    wanted = [one for key, seconds in groups if key[-1] not in NOT_TO_BE_SENT for one in seconds]
    within = sum(one is not None and one <= 10 for one in wanted)
    return within / len(wanted) if wanted else None


def percentile(values: list[float]) -> float | None:
    """The smallest that 95 % of them do not exceed."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1] if values else None


def test_a_day_is_counted_again_until_its_statuses_rest(world: World) -> None:
    first = world.past.accept(1)
    world.past.accept(1)
    world.past.accept(4, Channel.SMS, "undelivered")
    tested = world.past.accept(2)
    world.past.execute("UPDATE states SET is_test = true WHERE id = :id", id=tested)
    assert len(world.statistics.count_recent_days()) == len(RECOUNTED_DAYS)
    counted = [*zeros(*OLDER, 7, 6, 5), (4, "sms", "undelivered", 1), *zeros(3, 2), (1, "email", "sent", 2)]
    assert world.rows() == counted
    # Nothing is counted twice: neither by another run, nor under the status that it had before.
    world.statistics.count_recent_days()
    assert world.rows() == counted
    world.past.execute("UPDATE states SET status = 'delivered' WHERE id = :id", id=first)
    world.past.accept(5)
    world.statistics.count_recent_days()
    assert world.rows() == [
        *zeros(*OLDER, 7, 6),
        (5, "email", "sent", 1),
        (4, "sms", "undelivered", 1),
        *zeros(3, 2),
        (1, "email", "delivered", 1),
        (1, "email", "sent", 1),
    ]


def test_what_is_sent_months_later_is_counted_as_sent(world: World) -> None:
    later, other = world.past.accept(90, status="scheduled"), world.past.accept(80, status="scheduled")
    assert world.count(90)
    assert world.count(80)
    world.past.execute("UPDATE states SET status = 'delivered' WHERE id = :id", id=later)
    world.past.execute("UPDATE states SET status = 'sent' WHERE id = :id", id=other)
    world.statistics.count_recent_days()
    assert [row for row in world.rows() if row[3]] == [(90, "email", "delivered", 1), (80, "email", "sent", 1)]
    assert len(world.statistics.count_recent_days()) == len(RECOUNTED_DAYS), "they rest from now on"


def test_what_is_accepted_with_an_old_id_is_counted_within_a_week_of_its_acceptance(world: World) -> None:
    assert RECOUNTED_DAYS[-1] >= MAX_AGE.days + 2
    # A night in which its day is not counted, and the first one in which no such id is accepted any more.
    for days in (13, 35):
        world.past.accept(days)
    world.statistics.count_recent_days()
    assert [row for row in world.rows() if row[3]] == [(35, "email", "sent", 1)]
    assert all(later - earlier <= 7 for earlier, later in pairwise(RECOUNTED_DAYS))


def test_what_retention_deletes_stays_counted(world: World) -> None:
    for days in (40, 6, 2, 1):
        world.past.accept(days)
    assert world.count(40)
    world.statistics.count_recent_days()
    counted = world.rows()
    assert [row for row in counted if row[3]] == [(days, "email", "sent", 1) for days in (40, 6, 2, 1)]
    job = world.retain(30)
    assert world.with_kept_from(job.kept_from).count_recent_days()
    assert world.rows() == counted
    job = world.retain(3)
    # Days of which rows are gone are not counted, and would not be written if they were.
    today = world.today
    written = world.with_kept_from(job.kept_from).count_recent_days()
    assert written == [today - timedelta(days=days) for days in (1, 2, 3)]
    assert not world.count(6)
    assert not world.count(40)
    assert world.rows() == counted


def test_what_was_never_counted_is_not_shown_as_nothing(world: World) -> None:
    world.past.accept(3)
    assert world.count(3)
    assert world.count(1)
    report = world.statistics.report(
        world.today - timedelta(days=4), world.today + timedelta(days=9), [StatisticsKey.DAY]
    )
    assert [(row.values[0], row.count) for row in report.rows] == [
        (world.today - timedelta(days=3), 1),
        (world.today - timedelta(days=1), 0),
    ]
    assert report.missing == [world.today - timedelta(days=days) for days in (4, 2)]


def test_several_count_at_once(world: World) -> None:
    for days in RECOUNTED_DAYS:
        world.past.accept(days)
    errors: list[BaseException] = []

    def count() -> None:
        try:
            world.statistics.count_recent_days()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert world.rows() == [(days, "email", "sent", 1) for days in reversed(RECOUNTED_DAYS)]


def test_what_is_sent_late_on_purpose_is_not_slow(world: World) -> None:
    due = datetime.now(UTC)
    scheduled = world.past.accept(1, send_at=due)
    world.past.execute(
        "UPDATE states SET sent_at = :due + interval '2 seconds' WHERE id = :id", due=due, id=scheduled
    )
    world.past.execute(
        "UPDATE messages SET accepted_at = accepted_at - interval '1 day' WHERE id = :id", id=scheduled
    )
    world.count(1)
    (row,) = world.statistics.report(world.today - timedelta(days=1), world.today, [StatisticsKey.CHANNEL]).rows
    assert row.sent_seconds_p95 == pytest.approx(2.0)
    assert row.share_within_10s == 1


def test_the_command_line_shows_them(world: World, database_url: str) -> None:
    notifier = CommandLine({"database_url": SecretStr(database_url), "timezone": "UTC"})
    world.past.accept(1)
    world.statistics.count_recent_days()
    yesterday = world.today - timedelta(days=1)
    shown = notifier("statistics", "--since", yesterday, "--csv", "--by", "day,producer,status")
    assert shown.out.splitlines() == [
        "day,producer,status,count,sent_seconds_p95,share_within_10s",
        f"{yesterday},shop,sent,1,,0.0",
    ]
    found = notifier("statistics", "--since", "2d", "--until", world.today, "--json").json
    assert found == [
        {
            "day": str(yesterday - timedelta(days=1)),
            "channel": "",
            "status": "",
            "count": 0,
            "sent_seconds_p95": None,
            "share_within_10s": None,
        },
        {
            "day": str(yesterday),
            "channel": "email",
            "status": "sent",
            "count": 1,
            "sent_seconds_p95": None,
            "share_within_10s": 0.0,
        },
    ]
    shown = notifier("statistics", "--since", "9d", "--by", "channel")
    assert shown.out.splitlines()[1:] == ["email\t1\t\t0.0%"]
    assert f"2 days not counted: {date.fromordinal(yesterday.toordinal() - 8)}, " in shown.err
    assert notifier("statistics", "--since", "2h").code == 2
    assert notifier("statistics", "--by", "hour").code == 2


def test_beat_counts_the_days_of_the_configured_zone(database_url: str) -> None:
    zone = ZoneInfo("Asia/Shanghai")
    services = Services(Settings(database_url=SecretStr(database_url), timezone=zone), pool_size=2)
    done = services.upkeep.run(["statistics"])
    assert done == {"statistics": []}
    today = services.statistics.today()
    assert abs(datetime.now(zone).date() - today) <= timedelta(days=1)
    assert not services.statistics.report(today - timedelta(days=7), today, EVERYTHING).missing
    services.close()
