"""Jobs on a real Postgres: who works on one, where another goes on, how one ends."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.domain.errors import NotFound, ServiceUnavailable, WrongSelection
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, JobState, Lane, OnUnknown
from notifier.operations import Selection, jobs
from notifier.operations.jobs import Jobs
from notifier.security.recipient_hash import HashKey
from notifier.store import operator_actions
from notifier.store.engine import transaction
from notifier.store.jobs import JobRepository
from notifier.store.ledger import Ledger
from notifier.store.operator_actions import OperatorActions
from notifier.store.personal_data import PersonalData
from notifier.store.records import NewNotification
from notifier.store.search import Filter

KEY = HashKey("a" * 64)
#: Of a worker that is to end.
ENDING = Event()
ENDING.set()
FAILED = Selection(filter=Filter(status="failed", since=datetime(2020, 1, 1, tzinfo=UTC)))


@pytest.fixture
def repository(engine: Engine) -> JobRepository:
    return JobRepository(engine, OperatorActions(engine, KEY))


@pytest.fixture
def working(engine: Engine, repository: JobRepository, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """With pages of two."""
    monkeypatch.setattr(operator_actions, "PAGE", 2)
    return Jobs(repository, OperatorActions(engine, KEY))


def failed(engine: Engine, count: int, to: str = "ann@example.com") -> list[UUID]:
    message = {"producer": "shop", "to": to, "template": "hello"}
    new = [
        NewNotification(
            Message(id=new_id(), **message), Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.HOLD, position
        )
        for position in range(count)
    ]
    ids = [answer.id for answer in Ledger(engine, PersonalData(KEY)).accept(new)]
    _set(engine, "UPDATE states SET status = 'failed', due_at = NULL WHERE id = ANY(CAST(:ids AS uuid[]))", ids)
    return sorted(ids)


def _set(engine: Engine, statement: str, ids: Sequence[UUID] = ()) -> None:
    with transaction(engine) as connection:
        connection.execute(text(statement), {"ids": list(ids)} if ids else {})


def retried(engine: Engine) -> dict[UUID, int]:
    with transaction(engine) as connection:
        query = "SELECT notification_id, count(*) FROM events WHERE kind = 'operator' GROUP BY 1"
        return {row[0]: row[1] for row in connection.execute(text(query))}


def test_another_worker_goes_on_where_a_dead_one_stopped(
    engine: Engine, working: Jobs, repository: JobRepository
) -> None:
    ids = failed(engine, 5)
    job = working.retry(FAILED, operator="ann", reason="the relay is back")
    assert (job.state, job.total, job.changed) == (JobState.WAITING, 5, 0)
    assert repository.dispatch() == [job.id]
    assert repository.dispatch() == [], "its task is under way"
    lease = repository.take(job.id)
    assert lease == 1
    assert not working.run(job.id), "somebody has it"
    assert repository.work_page(job.id, lease, jobs._move_of)
    half = working.find(job.id)
    assert (half.state, half.matched, half.changed, half.finished_at) == (JobState.RUNNING, 2, 2, None)
    # What failed again is not retried again.
    _set(
        engine, "UPDATE states SET status = 'failed', due_at = NULL WHERE id = ANY(CAST(:ids AS uuid[]))", ids[:2]
    )
    _set(engine, "UPDATE jobs SET due_at = now()")
    assert repository.dispatch() == [job.id]
    assert working.run(job.id)
    assert not repository.work_page(job.id, lease, jobs._move_of), "the first one is back, and has lost it"
    done = working.find(job.id)
    assert (done.state, done.matched, done.changed) == (JobState.DONE, 5, 5)
    assert done.finished_at is not None
    assert retried(engine) == dict.fromkeys(ids, 1)
    assert repository.dispatch() == []
    assert not working.run(job.id)


def test_workers_that_take_a_job_from_each_other_retry_each_once(
    engine: Engine, working: Jobs, repository: JobRepository
) -> None:
    ids = failed(engine, 60)
    job = working.retry(FAILED, operator="ann")

    def work() -> None:
        while working.find(job.id).finished_at is None:
            # As if every lease ran out at once, whoever is at a page.
            _set(engine, "UPDATE jobs SET due_at = now() WHERE due_at IS NOT NULL")
            repository.dispatch()
            working.run(job.id)

    with ThreadPoolExecutor(4) as pool:
        for worker in [pool.submit(work) for _ in range(4)]:
            worker.result()
    done = working.find(job.id)
    assert (done.state, done.matched, done.changed) == (JobState.DONE, 60, 60)
    assert retried(engine) == dict.fromkeys(ids, 1)


def test_a_page_is_all_or_nothing(
    engine: Engine, working: Jobs, repository: JobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = failed(engine, 3)
    job = working.retry(FAILED, operator="ann")
    repository.dispatch()
    with monkeypatch.context() as patch:
        patch.setattr("notifier.store.jobs._GO_ON", text("SELECT pg_terminate_backend(pg_backend_pid())"))
        with pytest.raises(ServiceUnavailable):
            working.run(job.id)
    assert (retried(engine), working.find(job.id).matched) == ({}, 0)
    _set(engine, "UPDATE jobs SET due_at = now()")
    repository.dispatch()
    assert working.run(job.id)
    assert retried(engine) == dict.fromkeys(ids, 1)


def test_a_job_stops_between_pages_and_says_who_asked(
    engine: Engine, working: Jobs, repository: JobRepository
) -> None:
    failed(engine, 5)
    job = working.retry(FAILED, operator="ann")
    repository.dispatch()
    lease = repository.take(job.id)
    assert lease is not None
    assert repository.work_page(job.id, lease, jobs._move_of)
    asked = working.stop(job.id, operator="bob", reason="wrong ones")
    assert (asked.state, asked.stop_asked_at is None) == (JobState.RUNNING, False)
    assert not repository.work_page(job.id, lease, jobs._move_of)
    stopped = working.find(job.id)
    assert (stopped.state, stopped.changed, stopped.finished_at is None) == (JobState.STOPPED, 2, False)
    assert len(retried(engine)) == 2
    with pytest.raises(WrongSelection, match="stopped"):
        working.stop(job.id, operator="bob")
    with pytest.raises(NotFound):
        working.stop(new_id(), operator="bob")
    with transaction(engine) as connection:
        records = connection.execute(
            text("SELECT operator, action, reason FROM operator_records ORDER BY id")
        ).all()
    assert [tuple(record) for record in records] == [("ann", "retry", None), ("bob", "stop_job", "wrong ones")]


def test_a_worker_that_ends_gives_its_job_back_and_one_that_fails_ends_it(
    engine: Engine, working: Jobs, repository: JobRepository
) -> None:
    failed(engine, 5)
    job = working.retry(FAILED, operator="ann")
    repository.dispatch()
    assert working.run(job.id, ENDING)
    assert (working.find(job.id).state, working.find(job.id).changed) == (JobState.WAITING, 2)
    assert repository.dispatch() == [job.id], "at once"
    _set(engine, "UPDATE operator_records SET action = 'what no version knows'")
    assert working.run(job.id)
    broken = working.find(job.id)
    assert (broken.state, broken.changed, broken.failure) == (JobState.FAILED, 2, "KeyError, see the log")


def test_a_rate_holds_across_pages_and_workers(engine: Engine, working: Jobs, repository: JobRepository) -> None:
    ids = failed(engine, 4)
    job = working.retry(FAILED, operator="ann", rate_per_second=0.1)
    # What fails while it runs is for the next one.
    failed(engine, 1)
    repository.dispatch()
    assert working.run(job.id)
    resting = working.find(job.id)
    assert (resting.state, resting.changed) == (JobState.RUNNING, 1), "the next one is planned when it is near"
    assert repository.dispatch() == [], "no worker waits with it, and none is asked to"
    # A worker that is killed at a page leaves it to the next one.
    _set(engine, "UPDATE jobs SET due_at = now()")
    repository.dispatch()
    repository.take(job.id)
    # The rest of it waited for hours for a worker: it is spaced from then on.
    _set(engine, "UPDATE jobs SET next_at = now() - interval '3 hours'")
    begun = datetime.now(UTC)
    while working.find(job.id).finished_at is None:
        _set(engine, "UPDATE jobs SET due_at = now() WHERE due_at IS NOT NULL")
        repository.dispatch()
        assert working.run(job.id)
    assert retried(engine) == dict.fromkeys(ids, 1)
    with transaction(engine) as connection:
        query = "SELECT due_at FROM states WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id"
        due = list(connection.execute(text(query), {"ids": ids}).scalars())
    assert [later - earlier for earlier, later in pairwise(due[1:])] == [timedelta(seconds=10)] * 2
    assert abs(due[1] - begun) < timedelta(minutes=1)
    with pytest.raises(WrongSelection):
        working.retry(FAILED, operator="ann", rate_per_second=0)


def test_a_job_with_a_rate_stops_and_leaves_the_rest_as_it_was(
    engine: Engine, working: Jobs, repository: JobRepository
) -> None:
    failed(engine, 5)
    job = working.retry(FAILED, operator="ann", rate_per_second=0.001)
    repository.dispatch()
    working.run(job.id)
    working.stop(job.id, operator="bob")
    # It does not rest for a quarter of an hour first.
    _set(engine, "UPDATE jobs SET due_at = due_at - interval '1 second'")
    assert repository.dispatch() == [job.id]
    working.run(job.id)
    stopped = working.find(job.id)
    assert (stopped.state, stopped.changed) == (JobState.STOPPED, 1)
    assert len(retried(engine)) == 1


def test_a_job_keeps_no_address_and_finds_its_recipient(
    engine: Engine, working: Jobs, repository: JobRepository
) -> None:
    [hers], _ = failed(engine, 1), failed(engine, 1, to="bob@example.com")
    wanted = Filter(
        recipient="Ann <ann@example.com>", status="failed", channels=("email",), templates=("hel*",), is_test=False
    )
    job = working.retry(Selection(filter=wanted), operator="ann")
    assert "ann@example.com" not in str(job.selection)
    repository.dispatch()
    working.run(job.id)
    assert list(retried(engine)) == [hers]
    cancelled = working.cancel(Selection(ids=(hers,)), operator="ann")
    repository.dispatch()
    working.run(cancelled.id)
    assert [(one.action, one.changed) for one in working.page(limit=5)] == [("cancel", 1), ("retry", 1)]
    with pytest.raises(WrongSelection, match="everything"):
        working.retry(Selection(filter=Filter()), operator="ann")
