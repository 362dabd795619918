"""What a client says of an address of the API at which no HTTP, no TLS or no trusted certificate is."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from notifier import AsyncClient, Client, ConfigurationError, PublishRefused, new_id
from tests.support.tls import certificate, server_context
from tests.waiting import patient


@pytest.mark.parametrize(
    ("scheme", "answer", "match"),
    [
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks no TLS: write http://"),
        ("http", b"220 mail.example.com ESMTP\r\n", "speaks SMTP, not HTTP: give the port of"),
        ("http", b"\x15\x03\x03\x00\x02\x02\x46", "speaks TLS, not HTTP: write https://"),
    ],
)
def test_an_api_that_speaks_no_http_or_tls_is_no_matter_of_trying_again(
    scheme: str, answer: bytes, match: str
) -> None:
    def talk() -> None:
        with suppress(OSError):  # Closed: the test is over.
            while True:
                with server.accept()[0] as connection:
                    connection.recv(1000)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        talking = threads.submit(talk)
        address = f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
        client = Client("redis://127.0.0.1:1/0", api_url=address, api_key="ntf_live_x")
        with client, pytest.raises(ConfigurationError, match=match) as wrong:
            client.wait(new_id(), 600)
        assert wrong.value.setting == "NOTIFIER_API_URL"

        async def send() -> None:
            async with AsyncClient(address, "ntf_live_x") as client:
                await client.send("hello", "ann@example.com")

        with pytest.raises(PublishRefused, match=f"{match}.* publishing again does not help"):
            asyncio.run(send())
        server.shutdown(socket.SHUT_RDWR)
        talking.result(patient(5))


@pytest.mark.parametrize(
    ("is_trusted", "problem"),
    [(False, "is not trusted: .* SSL_CERT_FILE"), (True, "is another host's: write its name in the address")],
)
def test_a_certificate_that_is_not_right_is_no_matter_of_trying_again(
    is_trusted: bool, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = certificate(tmp_path, "DNS:other.example.com")
    context = server_context(both)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(both))

    def answer() -> None:
        with server.accept()[0] as connection, suppress(OSError):
            context.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        answered = threads.submit(answer)
        address = f"https://127.0.0.1:{server.getsockname()[1]}"
        client = Client("redis://127.0.0.1:1/0", api_url=address, api_key="ntf_live_x")
        with (
            client,
            pytest.raises(ConfigurationError, match=f"certificate of 127.* {problem}"),
        ):
            client.wait(new_id(), 600)
        answered.result(patient(5))
