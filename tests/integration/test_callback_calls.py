"""Calls of endpoints over real sockets: which are made, which are not, and what is made of the answers."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver

from notifier.callbacks import signing
from notifier.callbacks.http import CallbackAnswer, CallbackCaller
from notifier.domain.statuses import CallbackFailure
from tests.support.receiver import Receiver, Say, receiver

ROOT = Path(__file__).parents[2]
HOST = "hooks.example.com"


class Names(AbstractResolver):
    """Every host is at these addresses; each look-up takes the next list, the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            {"hostname": host, "host": one, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for one in found
        ]

    async def close(self) -> None: ...


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with receiver() as hooks:
        yield hooks


def call(url: str, *, times: int = 1, **options: Any) -> list[CallbackAnswer]:
    async def run() -> list[CallbackAnswer]:
        caller = CallbackCaller(options.pop("allowed", {"127.0.0.1"}), **options)
        try:
            return [await caller.call(url, {"webhook-id": "1"}, b"{}") for _ in range(times)]
        finally:
            await caller.close()

    found: Coroutine[Any, Any, list[CallbackAnswer]] = run()
    return asyncio.run(found)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_over_tls_the_name_is_shown_and_the_certificate_checked(certificate: Path) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    shown: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: shown.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    with receiver(server) as hooks:
        names, port = Names(["127.0.0.1"]), hooks.port
        good = call(f"https://{HOST}:{port}/x", allowed={HOST}, names=names, tls=trusting)
        unknown = call(f"https://{HOST}:{port}/x", allowed={HOST}, names=names)
        other = call(
            f"https://other.example.com:{port}/", allowed={"other.example.com"}, names=names, tls=trusting
        )
        assert len(hooks.got) == 1
    assert good == [CallbackAnswer(None, 200)]
    assert unknown == other == [CallbackAnswer(CallbackFailure.TLS)]
    assert shown[0] == HOST


def test_a_host_at_a_private_address_is_not_called_however_it_is_written(hooks: Receiver) -> None:
    names = Names(["127.0.0.1"])
    urls = [
        f"https://{HOST}/",
        "https://localhost/",
        "https://127.0.0.1/",
        "https://[::ffff:127.0.0.1]/",
        f"http://127.0.0.1:{hooks.port}/",
        f"https://127.0.0.1:{hooks.port}/",
        "https://2130706433/",
    ]

    async def run() -> list[CallbackAnswer]:
        caller = CallbackCaller(names=names)
        found = [await caller.call(url, {}, b"{}") for url in urls]
        await caller.close()
        return found

    assert asyncio.run(run()) == [CallbackAnswer(CallbackFailure.FORBIDDEN_ADDRESS)] * len(urls)
    assert hooks.got == []


def test_a_name_is_looked_up_and_checked_for_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first look-up says a public address, where nobody is called in a test; the second one says ours.
    dialled: list[str] = []

    async def refuse(self: Any, _socket: socket.socket, address: Any) -> None:
        dialled.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", refuse)
    answers = call(f"https://{HOST}/", times=2, allowed=(), names=Names(["8.8.8.8"], ["127.0.0.1"]))
    assert [answer.failure for answer in answers] == [
        CallbackFailure.CONNECTION,
        CallbackFailure.FORBIDDEN_ADDRESS,
    ]
    assert dialled == ["8.8.8.8"]


def test_a_redirect_is_not_followed(hooks: Receiver) -> None:
    with receiver() as inside:
        hooks.otherwise = Say(307, {"Location": f"http://127.0.0.1:{inside.port}/"})
        assert call(f"http://127.0.0.1:{hooks.port}/") == [CallbackAnswer(CallbackFailure.REDIRECT, 307)]
        assert inside.got == []


def test_a_proxy_of_the_environment_is_not_used(hooks: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert call(f"http://127.0.0.1:{hooks.port}/") == [CallbackAnswer(None, 200)]


def test_short_answers_keep_the_connection_and_long_ones_end_it(hooks: Receiver) -> None:
    hooks.answers = [Say(body=b"ok"), Say(body=b"x" * 5_000_000), Say()]
    assert call(f"http://127.0.0.1:{hooks.port}/", times=3) == [CallbackAnswer(None, 200)] * 3


def test_no_answer_in_time_is_a_timeout(hooks: Receiver) -> None:
    gate = threading.Event()
    hooks.otherwise = Say(gate=gate)
    try:
        assert call(f"http://127.0.0.1:{hooks.port}/", deadline_seconds=0.2) == [
            CallbackAnswer(CallbackFailure.TIMEOUT)
        ]
    finally:
        gate.set()


def test_nobody_there_is_a_connection_that_failed() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert call(f"http://127.0.0.1:{free.getsockname()[1]}/") == [CallbackAnswer(CallbackFailure.CONNECTION)]


def test_the_example_verifies_and_drops_what_is_older(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util
    from http.server import ThreadingHTTPServer

    spec = importlib.util.spec_from_file_location("receiver", ROOT / "examples/callback_receiver/receiver.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    key = b"a" * 32
    monkeypatch.setenv("WEBHOOK_SECRET", "whsec_" + base64.b64encode(key).decode())
    monkeypatch.setattr(example.Handler, "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), example.Handler)
    threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True).start()

    async def tell() -> list[int | None]:
        caller, found = CallbackCaller({"127.0.0.1"}), []
        for key_used, sequence, status in ((key, 2, "delivered"), (key, 1, "sent"), (b"b" * 32, 3, "failed")):
            body = (
                f'{{"type":"notification.status","data":{{"id":"n","status":"{status}","reason":null,'
                f'"sequence":{sequence}}}}}'
            ).encode()
            headers = signing.headers([key_used], str(sequence), int(time.time()), body)
            found.append((await caller.call(f"http://127.0.0.1:{server.server_port}/", headers, body)).http_status)
        await caller.close()
        return found

    assert asyncio.run(tell()) == [204, 204, 401]
    assert example.STATUSES == {"n": (2, "delivered")}
    server.shutdown()
    server.server_close()
