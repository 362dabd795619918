"""Waiting for a notification over HTTP: answered when it is ready, however many wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from notifier.api.status_watch import PERIOD_SECONDS, StatusWatch
from notifier.api.timeouts import ClientTimeouts
from notifier.domain.message import new_id
from notifier.domain.notification_status import CONTENT_HEADER
from notifier.operations.api_keys import Holder, Scope
from notifier.store.engine import transaction
from notifier.store.status_lookup import AskedStatus
from tests.support.api import Api, Reply, call, served
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    api = Api(database_url, write_templates(tmp_path))
    yield api
    api.close()


def send(api: Api, key: str, **fields: Any) -> str:
    message = {"channel": "email", "to": "ann@example.com", "template": "hello", "context": {"name": "Ann"}}
    reply = api("POST", "/v1/notifications", key=key, json_body={**message, "id": str(new_id()), **fields})
    assert reply.status == 202, reply.body
    return str(reply.json["id"])


def become(api: Api, status: str, notification: str) -> None:
    with transaction(api.services.engine) as connection:
        query = text("UPDATE states SET status = :status, due_at = NULL, updated_at = now() WHERE id = :id")
        connection.execute(query, {"status": status, "id": UUID(notification)})


def look(api: Api, key: str, notification: object, **query: Any) -> Reply:
    return api("GET", f"/v1/notifications/{notification}/status", key=key, **query)


def test_a_key_sees_where_its_own_stand_and_nothing_of_others(api: Api) -> None:
    key = api.key(Scope.SEND, Scope.READ)
    sent = send(api, key)
    found = look(api, key, sent)
    assert found.status == 200
    assert (found.json["id"], found.json["status"], found.json["producer"]) == (sent, "queued", "shop")
    assert look(api, api.key(Scope.READ, producer="bank"), sent).status == 404
    assert look(api, api.key(Scope.READ, is_test=True), sent).status == 404
    assert look(api, api.key(Scope.OPERATE), sent).status == 200
    # The record cannot be asked for it, and others are in the same read.
    assert look(api, key, new_id(), idempotency_key="\0").status == 422
    assert look(api, api.key(Scope.SEND), sent).status == 403
    assert look(api, key, new_id()).status == 404
    assert look(api, key, sent, wait=31).status == 422
    assert look(api, key, sent, waitt=1).json["errors"][0]["code"] == "unknown_field"


def test_a_message_under_a_known_key_is_found_by_it(api: Api) -> None:
    """The second client made an id of its own; the notification has the first one's."""
    live, test = (api.key(Scope.SEND, Scope.READ, is_test=is_test) for is_test in (False, True))
    sent = {key: send(api, key, idempotency_key="order-1") for key in (live, test)}
    for key in (live, test):
        assert look(api, key, new_id(), idempotency_key="order-1").json["id"] == sent[key]
    other = api.key(Scope.READ, producer="bank")
    assert look(api, other, new_id(), idempotency_key="order-1").status == 404


def test_nobody_learns_by_guesses_what_others_sent(api: Api) -> None:
    """A content that is asked about is right or wrong for its own producer alone."""
    owner = api.key(Scope.SEND, Scope.READ)
    sent = send(api, owner, idempotency_key="order-1")
    with transaction(api.services.engine) as connection:
        digest = connection.execute(text("SELECT body_hash FROM idempotency_keys")).scalar_one()
    strangers = [
        api.key(Scope.READ, producer="bank"),
        api.key(Scope.READ, is_test=True),
        api.key(Scope.READ, templates=("receipt",)),
    ]
    for content, known in ((bytes(digest).hex(), 200), ("0" * 64, 409)):
        for guess in (None, "order-1", "order-2"):
            query: dict[str, Any] = {"idempotency_key": guess} if guess else {}
            headers = {CONTENT_HEADER: content}
            path = f"/v1/notifications/{sent}/status"
            assert api("GET", path, key=owner, headers=headers, **query).status == known
            assert {api("GET", path, key=key, headers=headers, **query).status for key in strangers} == {404}


def test_who_waits_is_answered_when_it_is_ready_and_holds_no_thread(api: Api) -> None:
    key = api.key(Scope.SEND, Scope.READ)
    sent = [send(api, key) for _ in range(3)]
    late = str(new_id())
    with served(api.app, ClientTimeouts()) as port, ThreadPoolExecutor(80) as threads:

        def waiting(notification: str) -> Reply:
            url = f"http://127.0.0.1:{port}/v1/notifications/{notification}/status?wait=30"
            return call("GET", url, key=key)

        # Far more than the process has threads or connections to the database.
        first = [threads.submit(waiting, sent[number % 2]) for number in range(60)]
        not_yet = threads.submit(waiting, late)
        wait_until(lambda: len(api.parts.status_watch._waiters) == 61)
        assert call("GET", f"http://127.0.0.1:{port}/v1/notifications/{sent[2]}", key=key).status == 200
        send(api, key, id=late)
        become(api, "sent", sent[0])
        assert {one.result().json["status"] for one in first[::2]} == {"sent"}
        become(api, "failed", sent[1])
        assert {one.result().json["status"] for one in first[1::2]} == {"failed"}
        assert not not_yet.done()
        become(api, "delivered", late)
        assert not_yet.result().json["status"] == "delivered"
        # Nobody waits any more: nobody reads.
        reader = api.parts.status_watch._reader
        wait_until(lambda: reader is not None and reader.done())


def test_a_wait_ends_with_what_it_is_then_and_at_the_end_of_the_process(api: Api) -> None:
    key = api.key(Scope.SEND, Scope.READ)
    sent = send(api, key)
    assert look(api, key, sent, wait=PERIOD_SECONDS / 2).json["status"] == "queued"
    assert look(api, key, new_id(), wait=PERIOD_SECONDS / 2).status == 404
    # Nothing can come under these: nobody waits.
    for never in (uuid4(), new_id(time.time() - 40 * 86400)):
        assert look(api, key, never, wait=30).status == 404
    watch = api.parts.status_watch
    ends = threading.Timer(0.0, lambda: (wait_until(lambda: bool(watch._waiters)), watch.end()))
    started_at = time.monotonic()
    ends.start()
    assert look(api, key, sent, wait=30).json["status"] == "queued"
    ends.join()
    assert time.monotonic() - started_at < patient(10)


def test_one_read_asks_about_all_and_a_full_house_waits_no_more() -> None:
    reads: list[int] = []

    def find(wanted: Any) -> dict[Any, Any]:
        reads.append(len(wanted))
        return {}

    async def ask() -> None:
        watch = StatusWatch(find, max_waiting=10)
        holder = Holder("k", "k", "shop", frozenset(Scope), None, None, None)
        waiting = [asyncio.create_task(watch.status(AskedStatus(new_id()), holder, 600)) for _ in range(5)]
        while len(reads) < 2:
            await asyncio.sleep(0)
        assert await watch.status(AskedStatus(new_id()), holder, 600) is None
        watch.end()
        assert await asyncio.gather(*waiting) == [None] * 5

    asyncio.run(ask())
    assert max(reads) >= 5
