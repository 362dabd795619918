"""The HTTP API as a process, on a real database and a real broker, or on none."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from typing import Any
from uuid import UUID

from amqp.exceptions import NotFound
from kombu import Connection

from notifier.api.app import make_app
from notifier.bootstrap import Services
from notifier.broker import topology
from notifier.config.settings import Settings
from notifier.domain.statuses import Channel, Lane
from notifier.operations.api_keys import Scope
from notifier.runtime.connection_limit import raise_file_limit
from notifier.store.search import Filter
from tests.profiles import is_full
from tests.support import forking
from tests.support.api import Api, Reply, call, idle_connections, running_api
from tests.support.templates import write_templates
from tests.waiting import patient, slowness, wait_until

#: What schemathesis looks at in each answer.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,ignored_auth"
)


def key_of(database_url: str, templates: Path, *scopes: Scope) -> str:
    api = Api(database_url, templates)
    token = api.key(*scopes)
    api.close()
    return token


def send(url: str, key: str, number: int = 1) -> Reply:
    body: dict[str, Any] = {
        "channel": "email",
        "lane": "urgent",
        "to": "ann@example.com",
        "template": "hello",
        "context": {"name": "Ann"},
    }
    headers = {"Idempotency-Key": f"hello-{number}"}
    return call("POST", f"{url}/v1/notifications", key=key, json_body=body, headers=headers)


def tasks(broker_url: str) -> int:
    """How many deliver tasks wait for a worker."""
    queue = topology.deliver_queue(Channel.EMAIL, Lane.URGENT)
    with Connection(broker_url) as connection:
        try:
            return int(queue.bind(connection.default_channel).queue_declare(passive=True).message_count)
        except NotFound:
            return 0  # the first task makes it


def test_a_request_is_in_the_record_and_its_task_in_the_broker(
    database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    templates = write_templates(tmp_path / "templates")
    key = key_of(database_url, templates, Scope.SEND, Scope.READ)
    with running_api(database_url, amqp_url, tmp_path, NOTIFIER_TEMPLATES=str(templates)) as api:
        url = api.url
        assert call("GET", f"{url}/readyz").json["broker"] == "ok"
        first = send(url, key)
        assert first.status == 202
        wait_until(lambda: tasks(amqp_url) == 1)
        story = call("GET", url + first.json["url"], key=key)
        assert story.json["notification"]["status"] == "queued"
        with ThreadPoolExecutor(16) as pool:
            again = list(pool.map(lambda _: send(url, key), range(32)))
        assert {reply.body for reply in again} == {first.body}
        # A proxy hears that it ends, and whom it sends here meanwhile is answered.
        api.process.terminate()
        wait_until(lambda: call("GET", f"{url}/readyz").json["process"] == "ending")
        last = call("GET", f"{url}/readyz")
        assert (last.status, last.headers["connection"]) == (503, "close")
        assert send(url, key).body == first.body
        api.kill()
    log = (tmp_path / "api.log").read_text()
    assert "ann@example.com" not in log
    assert "Traceback" not in log


def test_while_the_broker_is_away_requests_are_accepted_and_left_to_the_sweep(
    database_url: str, tmp_path: Path
) -> None:
    templates = write_templates(tmp_path / "templates")
    key = key_of(database_url, templates, Scope.SEND)
    services = Services(Settings(database_url=database_url))
    nobody = "amqp://127.0.0.1:1/"
    with running_api(database_url, nobody, tmp_path, NOTIFIER_TEMPLATES=str(templates)) as api:
        url = api.url
        ids = {UUID(send(url, key, number).json["id"]) for number in range(5)}
        ready = call("GET", f"{url}/readyz")
        assert (ready.status, ready.json["broker"]) == (200, "away")
        due: set[UUID] = set()

        def is_due() -> bool:
            due.update(found.id for found in services.ledger.take_due(limit=10, unknown_after_seconds=30))
            return due == ids

        # Long before a lane's own time: the sweep was told to hurry.
        wait_until(is_due, timeout=20)
    services.close()


def test_what_was_answered_with_202_is_in_the_record_after_a_kill(
    database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    templates = write_templates(tmp_path / "templates")
    key = key_of(database_url, templates, Scope.SEND)
    accepted: set[str] = set()

    def send_until_it_is_gone(sender: int) -> None:
        for number in range(10_000):
            try:
                reply = send(api.url, key, sender * 10_000 + number)
            except (OSError, HTTPException):
                # Before it answered, or in the middle of its answer.
                return
            assert reply.status == 202
            accepted.add(reply.json["id"])

    running = running_api(database_url, amqp_url, tmp_path, NOTIFIER_TEMPLATES=str(templates))
    with running as api, ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send_until_it_is_gone, sender) for sender in range(4)]
        wait_until(lambda: len(accepted) > 100, timeout=60)
        api.kill()
        for sender in senders:
            sender.result()
    services = Services(Settings(database_url=database_url))
    recorded = {str(found.id) for found in services.audit.search(Filter(), limit=100_000)}
    services.close()
    assert accepted <= recorded
    # One more for each request that was under way.
    assert len(recorded) <= len(accepted) + 4


def test_a_thousand_idle_connections_keep_nobody_out_and_do_not_delay_the_end(
    database_url: str, tmp_path: Path
) -> None:
    templates = write_templates(tmp_path / "templates")
    key = key_of(database_url, templates, Scope.SEND)
    raise_file_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    environment = {"NOTIFIER_TEMPLATES": str(templates), "NOTIFIER_API_PEER_CONNECTIONS": "1000"}
    # As a shell or systemd starts it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    with ExitStack() as during:
        api = during.enter_context(running_api(database_url, "amqp://127.0.0.1:1/", tmp_path, **environment))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        port = int(api.url.rpartition(":")[2])
        begun = f"POST /v1/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        waiting = f"{begun}Content-Type: application/json\r\nContent-Length: 900\r\n\r\n"
        with (
            idle_connections(port, 1003),
            idle_connections(port, 200, begun.encode()),
            idle_connections(port, 100, waiting.encode()),
        ):
            for number in range(20):
                assert send(api.url, key, number).status == 202
                assert call("GET", f"{api.url}/healthz").status == 200
            assert call("GET", f"{api.url}/readyz").status == 200
            stopped = time.monotonic()
            api.process.terminate()
            assert api.process.wait(timeout=patient(30)) == 0
            assert time.monotonic() - stopped < 15 * slowness()
    assert "Traceback" not in (tmp_path / "api.log").read_text()


def test_a_port_that_is_taken_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        places = {
            "NOTIFIER_DATABASE_URL": "postgresql://127.0.0.1:1/x",
            "NOTIFIER_BROKER_URL": "amqp://127.0.0.1:1/",
        }
        settings = {**places, "NOTIFIER_API_PORT": port, "NOTIFIER_DATA_DIR": str(tmp_path)}
        command = [sys.executable, "-m", "notifier", "api"]
        done = forking.run(
            command,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=patient(60),
        )
    assert done.returncode == 2
    assert "NOTIFIER_API_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def count_operations() -> int:
    return sum(len(operations) for operations in make_app().openapi()["paths"].values())


def test_no_request_breaks_it_and_no_answer_is_undocumented(
    database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    templates = write_templates(tmp_path / "templates")
    key = key_of(database_url, templates, Scope.SEND, Scope.READ, Scope.ADMIN)
    with running_api(database_url, amqp_url, tmp_path, NOTIFIER_TEMPLATES=str(templates)) as api:
        url = api.url
        assert send(url, key).status == 202
        header = ("--header", f"Authorization: Bearer {key}")
        # Every boundary of every field, and who has no key, in the full profile alone.
        phases = "coverage,fuzzing" if is_full() else "fuzzing"
        runs = [schemathesis(url, tmp_path / "with", "--phases", phases, *header)]
        runs += [schemathesis(url, tmp_path / "without", "--phases", "fuzzing")] if is_full() else []
        for run in runs:
            said, _ = run.communicate(timeout=patient(90))
            assert run.returncode == 0, said[-6000:]
            assert f"Tested: {count_operations()}" in said
    assert "api.failed" not in (tmp_path / "api.log").read_text()


def schemathesis(url: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Requests of all kinds, right and wrong, made from the OpenAPI document."""
    folder.mkdir()
    program = Path(sys.executable).with_name("schemathesis")
    return subprocess.Popen(
        [
            program,
            "run",
            f"{url}/openapi.json",
            "--checks",
            CHECKS,
            *(("--max-examples", "12", "--generation-deterministic") if is_full() else ("--max-examples", "2")),
            *options,
            "--no-color",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
    )
