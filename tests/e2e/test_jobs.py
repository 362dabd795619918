"""Real processes: a retry of many goes on although the API that took it and the worker that does it are killed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from notifier.bootstrap import Services
from notifier.config.settings import Settings
from notifier.dev.programs import Programs
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, JobState, Lane, OnUnknown
from notifier.operations.api_keys import Scope
from notifier.store.engine import transaction
from notifier.store.operator_actions import PAGE
from notifier.store.records import NewNotification
from tests.e2e.test_api import key_of
from tests.profiles import is_full
from tests.support import forking
from tests.support.api import call, running_api
from tests.support.templates import write_templates
from tests.waiting import wait_until

COUNT = 10 * PAGE if is_full() else 2 * PAGE
#: It sweeps and works on jobs; nobody takes the retried mails, which are of another lane.
WORKER = ("worker", "--no-callbacks", "--lanes", "urgent", "--channels", "email")


def fail_many(services: Services) -> list[UUID]:
    """In the order of their ids."""
    ids = []
    for _ in range(COUNT // PAGE):
        new = [
            NewNotification(
                Message(id=new_id(), producer="shop", to="ann@example.com", template="hello"),
                Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.HOLD, position,
            )
            for position in range(PAGE)
        ]  # fmt: skip
        ids += [answer.id for answer in services.ledger.accept(new)]
    change(services, "status = 'failed', due_at = NULL", ids)
    return sorted(ids)


def change(services: Services, values: str, ids: list[UUID]) -> None:
    with transaction(services.engine) as connection:
        statement = f"UPDATE states SET {values} WHERE id = ANY(CAST(:ids AS uuid[]))"
        connection.execute(text(statement), {"ids": ids})


def test_each_is_retried_once_although_api_and_worker_are_killed(
    database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    templates = write_templates(tmp_path / "templates")
    services = Services(Settings(database_url=database_url))
    ids = fail_many(services)
    environment = {
        "NOTIFIER_DATABASE_URL": database_url,
        "NOTIFIER_BROKER_URL": amqp_url,
        "NOTIFIER_TEMPLATES": str(templates),
        "NOTIFIER_DATA_DIR": str(tmp_path),
    }

    def started(name: str, **programs: tuple[str, ...]) -> Programs:
        made = Programs(environment, tmp_path / name, None, programs, launch=forking.launch)
        stack.callback(made.stop)
        made.start()
        return made

    with ExitStack() as stack:
        stack.callback(services.close)
        first = started("first", beat=("beat",), worker=WORKER)
        with running_api(database_url, amqp_url, tmp_path, NOTIFIER_TEMPLATES=str(templates)) as api:
            # The worker comes to a page that it cannot end.
            barrier = stack.enter_context(services.engine.connect())
            barrier.execute(text("SELECT 1 FROM states WHERE id = :id FOR UPDATE"), {"id": ids[-1]})
            body: dict[str, Any] = {"filter": {"status": "failed"}, "background": True, "rate_per_second": PAGE}
            key = key_of(database_url, templates, Scope.OPERATE)
            made = call("POST", f"{api.url}/v1/notifications/retry", key=key, json_body=body)
            assert (made.status, made.json["total"]) == (202, COUNT)
            api.kill()
        job = UUID(made.json["id"])
        wait_until(lambda: services.jobs.find(job).matched == COUNT - PAGE, timeout=60)
        assert services.jobs.find(job).state is JobState.RUNNING
        pid = first.pids["worker"]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        barrier.rollback()
        # What has failed again meanwhile was retried already.
        change(services, "status = 'failed', due_at = NULL", ids[:10])
        started("second", worker=WORKER)
        wait_until(lambda: services.jobs.find(job).finished_at is not None, timeout=60)
        done = services.jobs.find(job)
        assert (done.state, done.matched, done.changed) == (JobState.DONE, COUNT, COUNT)
        with transaction(services.engine) as connection:
            query = "SELECT notification_id FROM events WHERE kind = 'operator'"
            retried = Counter(connection.execute(text(query)).scalars())
            due = "SELECT count(DISTINCT replayed_at) FROM states"
            assert connection.execute(text(due)).scalar() == COUNT, "each has its own time"
        assert retried == dict.fromkeys(ids, 1)
