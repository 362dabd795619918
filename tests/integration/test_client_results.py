"""Asking the service what became of a message: in a thread, on asyncio, in the words of Celery."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from notifier import (
    AsyncClient,
    Client,
    ConfigurationError,
    Handle,
    InvalidMessage,
    NotificationFailed,
    NotifierResult,
    NotReady,
    PublishFailed,
    PublishRefused,
    ServiceUnavailable,
    new_id,
)
from notifier.api.timeouts import ClientTimeouts
from notifier.broker.batch_form import join
from notifier.domain.statuses import Channel, Lane
from notifier.intake.batch import Received
from notifier.operations.api_keys import Scope
from notifier.store.engine import transaction
from tests.support.api import Api, served
from tests.support.queues import bodies
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until

#: Nobody listens.
AWAY = "http://127.0.0.1:1"


@dataclass
class Service:
    api: Api
    url: str
    key: str

    def become(self, status: str, notification_id: UUID, reason: str | None = None) -> None:
        with transaction(self.api.services.engine) as connection:
            query = text("UPDATE states SET status = :status, reason = :reason, due_at = NULL WHERE id = :id")
            connection.execute(query, {"status": status, "id": notification_id, "reason": reason})

    def take(self, broker_url: str) -> None:
        """What the intake does with all that was published."""
        received = [Received(b, Channel.EMAIL, Lane.NORMAL) for b in bodies(broker_url, "notify.email.normal")]
        self.api.parts.intake.process(received)


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    api = Api(database_url, write_templates(tmp_path))
    with served(api.app, ClientTimeouts()) as port:
        yield Service(api, f"http://127.0.0.1:{port}", api.key(Scope.SEND, Scope.READ))
    api.close()


def hello(client: Client, **fields: Any) -> Handle:
    return client.send("hello", "ann@example.com", context={"name": "Ann"}, **fields)


def test_a_message_is_followed_from_the_broker_to_its_end(service: Service, broker_url: str) -> None:
    with Client(
        broker_url, producer="shop", api_url=service.url, api_key=service.key, timeout_seconds=patient(5)
    ) as client:
        handle = hello(client, idempotency_key="order-1")
        assert handle.status() is None
        assert (client.result(handle.id).state, client.result(handle).ready()) == ("PENDING", False)
        with pytest.raises(NotReady, match="not in the record after 0 s") as not_there:
            handle.wait(0)
        assert not_there.value.status is None
        service.take(broker_url)
        status = handle.status()
        assert status is not None
        assert (status.id, status.status, status.is_ready) == (handle.id, "queued", False)
        with pytest.raises(TimeoutError, match=r"queued after 0\.1 s"):
            handle.wait(0.1)
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(handle.wait, 60)
            wait_until(lambda: bool(service.api.parts.status_watch._waiters))
            service.become("sent", handle.id)
            found = waiting.result()
        assert (found.status, found.is_successful, found.producer) == ("sent", True, "shop")
        # Sent again by who lost the handle: another id, the same notification.
        again = hello(client, idempotency_key="order-1")
        assert again.id != handle.id
        assert again.wait(10).id == handle.id
        assert client.result(again).successful()
        assert client.status(handle.id) == client.wait(str(handle.id), 10) == found
        # Another message under its key is rejected: what became of the first says nothing about it.
        other = hello(client, idempotency_key="order-1", reference="order-2")
        for ask in (other.status, lambda: other.wait(10), lambda: client.result(other).state):
            with pytest.raises(InvalidMessage, match="was used before with another content"):
                ask()
        # So it is under its id.
        for key, why in (
            (None, "with another content"),
            ("order-1", "with another content"),
            ("order-9", "has this id"),
        ):
            taken = hello(client, id=handle.id, idempotency_key=key, reference="order-3")
            with pytest.raises(InvalidMessage, match=why):
                taken.wait(10)
        assert hello(client, id=handle.id, idempotency_key="order-1").wait(10) == found
        # A task's arguments do not tell the content, so the key alone is asked for.
        copy = pickle.loads(pickle.dumps(other)).asking(client._api)
        assert (copy, copy.wait(10).id) == (other, handle.id)


def test_a_result_has_the_words_of_celery(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_API_URL", service.url)
    monkeypatch.setenv("NOTIFIER_API_KEY", service.key)
    handle = asyncio.run(sent_over_http())
    result = NotifierResult(str(handle.id))
    assert (result.id, result.state, result.ready(), result.failed()) == (str(handle.id), "PENDING", False, False)
    service.become("failed", handle.id, "invalid_recipient")
    assert (result.status, result.ready(), result.failed(), result.successful()) == ("FAILURE", True, True, False)
    assert (result.task_id, result.result) == (result.id, result.info)
    with pytest.raises(NotificationFailed, match=r"ended as failed \(invalid_recipient\)") as failed:
        result.get(timeout=10)
    assert failed.value.status == result.get(propagate=False) == result.wait(10, propagate=False) == result.info
    assert failed.value.status.reason == "invalid_recipient"
    result._api.close()


async def sent_over_http() -> Any:
    async with AsyncClient() as client:
        return await client.send("hello", "ann@example.com", context={"name": "Ann"})


def test_asyncio_sends_and_waits_for_many_at_once(service: Service) -> None:
    async def run() -> None:
        async with AsyncClient(service.url, service.key, timeout_seconds=patient(5)) as client:
            one = await client.send("hello", "ann@example.com", context={"name": "Ann"}, idempotency_key="k")
            assert (
                await client.send("hello", "ann@example.com", context={"name": "Ann"}, idempotency_key="k")
            ) == one
            entries = [{"to": f"{n}@example.com", "context": {"name": "x"}} for n in range(30)]
            handles = await client.send_many(entries, channel="email", template="hello", lane="normal")
            waiting = [asyncio.create_task(handle.wait(60)) for handle in handles]
            while len(service.api.parts.status_watch._waiters) < len(handles):
                await asyncio.sleep(0.01)
            for handle in handles:
                await asyncio.to_thread(service.become, "delivered", handle.id)
            found = await asyncio.gather(*waiting)
            assert [status.id for status in found] == [handle.id for handle in handles]
            status = await one.status()
            assert status is not None
            assert (status, await client.status(one.id), status.producer) == (status, status, "shop")
            with pytest.raises(NotReady):
                await client.wait(one.id, 0)

    asyncio.run(run())


def test_a_crowd_that_waits_keeps_its_deadline_and_nobody_from_sending(service: Service) -> None:
    crowd, seconds = 130, 3.0
    api: Any = {"api_url": service.url, "api_key": service.key, "timeout_seconds": patient(5)}
    with Client("amqp://127.0.0.1:1//", producer="shop", **api) as client:
        with ThreadPoolExecutor(crowd) as threads:
            started_at = time.monotonic()
            found = list(threads.map(lambda _: _outcome(client, seconds), range(crowd)))
        assert time.monotonic() - started_at < seconds + patient(5)
        assert set(found) == {NotReady}

    watch = service.api.parts.status_watch

    async def on_asyncio() -> None:
        async with AsyncClient(**api) as client:
            waiting = [asyncio.create_task(client.wait(new_id(), 60)) for _ in range(crowd)]
            # As many as the service holds for one key; the others come again and again.
            while len(watch._waiters) < watch.max_waiting // 2:
                await asyncio.sleep(0.01)
            one = await client.send("hello", "ann@example.com", context={"name": "Ann"})
            # Beyond those that are held, too.
            last = asyncio.create_task(one.wait(60))
            service.become("sent", one.id)
            assert (await last).status == "sent"
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)

    asyncio.run(on_asyncio())
    # Nothing holds the end of the server up.
    watch.end()


def _outcome(client: Client, seconds: float) -> type[Exception] | None:
    try:
        client.wait(new_id(), seconds)
    except Exception as error:
        return type(error)
    return None


def test_over_http_every_fault_is_told_at_once_by_position(service: Service) -> None:
    async def run() -> None:
        async with AsyncClient(service.url, service.key, producer="shop", timeout_seconds=patient(5)) as client:
            with pytest.raises(InvalidMessage) as one:
                await client.send("hello", "ann@example.com", sender="mallory")
            assert [fault.field for fault in one.value.faults] == ["context.name", "sender"]
            good = {"to": "a@example.com", "context": {"name": "a"}}
            with pytest.raises(InvalidMessage) as some:
                await client.send_many([good, {"to": "b@example.com"}], channel="email", template="hello")
            assert [fault.field for fault in some.value.faults] == ["1.context.name"]
            with pytest.raises(InvalidMessage) as none:
                await client.send_many([{"to": "b@example.com"}], channel="email", template="hello")
            assert [fault.field for fault in none.value.faults] == ["0.context.name"]
            # What breaks the contract is not accepted; what the service says against it is told all the same.
            wrong: Any = {"sender": "mallory", "callback_url": "https://elsewhere.example/"}
            with pytest.raises(InvalidMessage) as broken:
                await client.send("hello", "adaexample.com", context={"n": object(), "f": float("nan")}, **wrong)
            fields = ["context.n", "to", "context.f", "context.name", "sender", "callback_url"]
            assert [fault.field for fault in broken.value.faults] == fields
            with pytest.raises(InvalidMessage) as broken:
                await client.send_many((one for one in (good, {"to": "b"})), channel="email", template="hello")
            assert [fault.field for fault in broken.value.faults] == ["1.to", "1.context.name"]
            many: Any = [{**good, "sender": "mallory"}, 5, {"to": "b"}, good]
            with pytest.raises(InvalidMessage) as broken:
                await client.send_many(many, channel="email", template="hello")
            assert [fault.field for fault in broken.value.faults] == ["0.sender", "1", "2.to", "2.context.name"]
            # Only the client has something against these.
            for context in ({"name": float("nan")}, {"name": "Ann", "more": object()}):
                with pytest.raises(InvalidMessage) as broken:
                    await client.send("hello", "ann@example.com", context=context)
                assert len(broken.value.faults) == 1
            # The good one beside the one that lacked a variable.
            assert [len(ids) for _, _, ids in service.api.handed.tasks] == [1]
        async with AsyncClient(AWAY, "x", timeout_seconds=1) as client:
            with pytest.raises(InvalidMessage) as broken:
                await client.send("hello", "adaexample.com")
            assert [fault.field for fault in broken.value.faults] == ["to"]
        for wrong in ("ntf_live_1", service.api.key(Scope.READ)):
            async with AsyncClient(service.url, wrong) as client:
                with pytest.raises(PublishRefused, match="publishing again does not help"):
                    await client.send("hello", "ann@example.com")
        async with AsyncClient(AWAY, "x", timeout_seconds=1) as client:
            with pytest.raises(PublishFailed, match=r"no answer .*; publish again") as away:
                await client.send("hello", "ann@example.com")
            assert not isinstance(away.value, PublishRefused)

    asyncio.run(run())


def test_what_is_missing_or_wrong_is_said_with_its_fix(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = ExitStack()

    def asked(**api: Any) -> NotifierResult:
        client = clients.enter_context(Client("amqp://127.0.0.1:1//", producer="shop", **api))
        return client.result(new_id())

    with clients:
        _asked_wrongly(asked, service)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ConfigurationError, match=r"install notifier\[http\] from where"):
        asked(api_url=service.url, api_key="x").ready()


def _asked_wrongly(asked: Callable[..., NotifierResult], service: Service) -> None:
    with pytest.raises(ConfigurationError, match=r"api_url= .* NOTIFIER_API_URL") as missing:
        asked().ready()
    assert missing.value.setting == "NOTIFIER_API_URL"
    with pytest.raises(ConfigurationError, match="notifier keys create") as missing:
        asked(api_url=service.url).ready()
    assert missing.value.setting == "NOTIFIER_API_KEY"
    with pytest.raises(ConfigurationError, match=r"refuses the key: the key is not valid"):
        asked(api_url=service.url, api_key="ntf_live_1").ready()
    with pytest.raises(ConfigurationError, match="needs the scope read"):
        asked(api_url=service.url, api_key=service.api.key(Scope.SEND)).get(10)
    with pytest.raises(ServiceUnavailable, match="no answer"):
        asked(api_url=AWAY, api_key="x").get(0.1)
    with pytest.raises(TypeError):
        asked(api="x")


def asking(service: Service) -> Client:
    """A client that sends nothing."""
    return Client(
        "amqp://127.0.0.1:1//",
        producer="shop",
        api_url=service.url,
        api_key=service.key,
        timeout_seconds=patient(5),
    )


def test_who_waits_outlives_a_service_that_is_away_for_a_while(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.api.errors.AWAY_SECONDS", 0)
    with asking(service) as client:
        handle = asyncio.run(sent_by(service))
        find = service.api.parts.status_watch.find
        failed = threading.Event()

        def away(wanted: Any) -> Any:
            failed.set()
            raise ServiceUnavailable("the database is away")

        service.api.parts.status_watch.find = away
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(client.wait, handle.id, 60)
            assert failed.wait(30)
            service.become("cancelled", handle.id)
            service.api.parts.status_watch.find = find
            assert waiting.result().status == "cancelled"


async def sent_by(service: Service) -> Any:
    async with AsyncClient(service.url, service.key, timeout_seconds=patient(5)) as client:
        return await client.send("hello", "ann@example.com", context={"name": "Ann"})


def test_templates_are_checked_before_anything_is_published(
    service: Service, redis_broker_url: str, tmp_path: Path
) -> None:
    options = {"api_key": service.key, "templates": service.url}
    with Client(redis_broker_url, producer="shop", **options) as client:  # type: ignore[arg-type]
        hello(client)
        for arguments, faults in (
            (("hello", "nobody", {}), {"to": "not_an_address", "context.name": "missing_variable"}),
            (("hello", "ann@example.com", {"name": 5}), {"context.name": "wrong_type"}),
            (("helo", "ann@example.com", {}), {"template": "unknown_template"}),
        ):
            template, to, context = arguments
            with pytest.raises(InvalidMessage) as refused:
                client.send(template, to, context=context)
            assert {fault.field: fault.code for fault in refused.value.faults} == faults
        assert len(list(bodies(redis_broker_url, "notify.email.normal"))) == 1
    # The service does not answer: nothing is checked, and the service will say it.
    with Client(redis_broker_url, producer="shop", **options | {"templates": AWAY}) as client:  # type: ignore[arg-type]
        client.send("helo", "ann@example.com")


def test_a_child_process_makes_connections_of_its_own(service: Service) -> None:
    with asking(service) as client:
        assert client.status(new_id()) is None
        connections = client._service_api._connections
        assert list(connections) == [os.getpid()]
        connections[1] = connections.pop(os.getpid())  # as a child sees them
        assert client.status(new_id()) is None
        assert set(connections) == {1, os.getpid()}
        for inherited in connections.pop(1).close():
            inherited.close()


def test_a_batch_over_http_is_the_brokers_form() -> None:
    assert join([b"{}", b"{}"]) == b'{"batch":[{},{}]}'
