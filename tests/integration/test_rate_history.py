"""Counts of each minute: what programs add, and the points of a chart."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import text

from notifier.bootstrap import Services
from notifier.config.settings import Settings
from notifier.domain.statuses import Channel, Lane
from notifier.operations.failed_lately import failed_lately
from notifier.operations.rate_history import RateRecorder, quantile
from notifier.store.engine import transaction
from notifier.store.minute_counts import FailedAddition, MinuteAddition, SpanCounts
from notifier.telemetry import metrics
from notifier.telemetry.metrics import IntakeSource

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def services(database_url: str, tmp_path: Path) -> Iterator[Services]:
    services = Services(Settings(database_url=database_url, templates=tmp_path))
    yield services
    services.close()


def move_back(services: Services, minutes: int) -> None:
    with transaction(services.engine) as connection:
        connection.execute(
            text("UPDATE minute_counts SET minute = minute - make_interval(mins => :minutes)"),
            {"minutes": minutes},
        )
        connection.execute(
            text("UPDATE failed_counts SET minute = minute - make_interval(mins => :minutes)"),
            {"minutes": minutes},
        )


def buckets(**counts: int) -> tuple[int, ...]:
    """`_0=3`: three in the first bucket."""
    return tuple(counts.get(f"_{place}", 0) for place in range(len(metrics.SENT_BOUNDS) + 1))


def test_programs_add_to_the_same_minute(services: Services) -> None:
    one = MinuteAddition("email", "normal", 30, buckets(_0=10, _2=10))
    services.minute_counts.add([one, MinuteAddition("sms", "urgent", 10, buckets(_2=10))])
    services.minute_counts.add([one])
    move_back(services, 5)
    points = services.rate_history.points(HOUR, step=MINUTE)
    assert len(points) == 60
    [point] = [point for point in points if point.accepted]
    assert (point.accepted, point.sent) == (70, 50)
    assert point.p50 is not None
    assert point.p95 is not None
    assert 0.25 < point.p50 < point.p95 < 0.5
    move_back(services, 30)
    by_quarter = services.rate_history.points(timedelta(days=1), step=timedelta(minutes=15))
    assert sum(point.accepted for point in by_quarter) == pytest.approx(70 / 15)


def test_a_chart_reads_what_is_over_once(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[datetime] = []
    spans = services.minute_counts.spans

    def noted(since: datetime, *spans_of: int) -> list[SpanCounts]:
        read.append(since)
        return spans(since, *spans_of)

    monkeypatch.setattr(services.minute_counts, "spans", noted)
    services.minute_counts.add([MinuteAddition("email", "normal", 30, buckets(_0=10))])
    move_back(services, 30)
    first = services.rate_history.points(HOUR, step=MINUTE)
    services.minute_counts.add([MinuteAddition("email", "normal", 5, buckets())])
    move_back(services, 1)
    second = services.rate_history.points(HOUR, step=MINUTE)
    assert read[1] - read[0] >= HOUR - 5 * MINUTE
    # The first ones are as they were, and what came since is seen.
    assert [point.accepted for point in first if point.accepted] == [30]
    assert [point.accepted for point in second if point.accepted] == [30, 5]


def test_a_process_adds_what_its_metrics_counted_once(services: Services) -> None:
    recorder = RateRecorder(services.minute_counts)
    metrics.ACCEPTED.labels("email", "bulk", IntakeSource.HTTP).inc(7)
    metrics.ACCEPTED_TO_SENT.observe(("email", "bulk"), [0.05, 200_000.0])
    metrics.FAILED.labels("email", "provider_rejected").inc(3)
    recorder.write()
    recorder.write()
    recorder.start().close()
    assert failed_lately(services.minute_counts).failed == 3
    move_back(services, 2)
    [point] = [point for point in services.rate_history.points(HOUR, step=MINUTE) if point.accepted]
    assert (point.accepted, point.sent, point.p95) == (7, 2, metrics.SENT_BOUNDS[-1])


def test_what_waits_is_noted_and_old_minutes_are_forgotten(services: Services) -> None:
    services.rate_history.note_waiting()
    services.minute_counts.add([MinuteAddition("email", "bulk", 1, buckets())])
    move_back(services, 2)
    [point] = [point for point in services.rate_history.points(HOUR, step=MINUTE) if point.accepted]
    assert point.waiting == 0
    move_back(services, 9 * 24 * 60)
    assert services.minute_counts.forget_old() == len(Channel) * len(Lane)
    assert services.minute_counts.forget_old() == 0


def test_a_channel_that_fails_is_told_for_an_hour(services: Services) -> None:
    counts, mails = services.minute_counts, MinuteAddition("email", "normal", 0, buckets(_0=100))
    counts.add([mails], [FailedAddition("sms", "invalid_recipient", 9), FailedAddition("email", "expired", 10)])
    found = failed_lately(counts)
    assert (found.failed, found.failing) == (19, ())
    move_back(services, 20)
    counts.add([], [FailedAddition("email", "provider_rejected", 30), FailedAddition("email", "expired", 10)])
    [one] = failed_lately(counts).failing
    assert (one.late.channel, one.late.failed, one.late.ended) == ("email", 50, 150)
    assert (one.late.worst_failed, one.late.worst_ended, one.late.reason) == (40, 40, "provider_rejected")
    # The outage is over, and mails go out again: its failures are still of the last hour.
    move_back(services, 20)
    counts.add([mails, mails])
    [one] = failed_lately(counts).failing
    assert "50 of 350 email sends failed in the last hour, 40 of 40 in the worst ten minutes" in one.why
    move_back(services, 60)
    assert failed_lately(counts).failing == ()
    move_back(services, 9 * 24 * 60)
    assert counts.forget_old() == 1 + 2 + 1 + 2


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([], 0.5, None),
        ([0, 0, 0], 0.5, None),
        ([4, 0, 0], 0.5, 0.5),
        ([0, 10, 0], 0.95, 1.95),
        ([1, 1, 8], 0.95, 2.0),
        ([1, 0, 1], 0.5, 1.0),
    ],
)
def test_a_quantile_lies_within_its_bucket(counts: list[int], share: float, expected: float | None) -> None:
    assert quantile(counts, share, (1.0, 2.0)) == (expected if expected is None else pytest.approx(expected))


def test_a_database_that_hangs_holds_up_no_end(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    is_answered = Event()
    monkeypatch.setattr(services.minute_counts, "add", lambda *_: is_answered.wait(60))
    recorder = RateRecorder(services.minute_counts).start()
    recorder.close()
    assert not is_answered.is_set()
    is_answered.set()
