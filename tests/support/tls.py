"""Certificates, and servers that speak TLS or anything else."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from sqlalchemy.engine import URL


def certificate(folder: Path, *names: str) -> Path:
    """A new self-signed certificate for these names, each as `DNS:localhost` or `IP:127.0.0.1`, and its key, in
    one file."""
    folder.mkdir(parents=True, exist_ok=True)
    both, key = folder / "both.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=a test", "-addext", f"subjectAltName={','.join(names)}",
         "-keyout", str(key), "-out", str(both)],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_text(both.read_text() + key.read_text())
    return both


def server_context(both: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context


@contextmanager
def served(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that calls `serve` with each connection."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    def talk(connection: socket.socket) -> None:
        with suppress(OSError), closing(connection):
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@contextmanager
def behind_tls(url: str, both: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """The URL of the same broker at this host, behind a proxy with this certificate."""
    context, parts = server_context(both), urlsplit(url)

    def relay(plain: socket.socket) -> None:
        target = parts.hostname or "", parts.port or 0
        with context.wrap_socket(plain, server_side=True) as client, socket.create_connection(target) as broker:
            threading.Thread(target=_pump, args=(broker, client), daemon=True).start()
            _pump(client, broker)

    with served(relay) as port:
        yield at(parts, host, port)


#: Requests that libpq sends before it begins: for TLS, or for Kerberos.
_TLS, _KERBEROS = bytes.fromhex("0000000804d2162f"), bytes.fromhex("0000000804d21630")


@contextmanager
def postgres_behind_tls(url: URL, both: Path) -> Iterator[int]:
    """The port of a proxy on 127.0.0.1 with this certificate, in front of the server of this URL."""
    context = server_context(both)
    host, port = str(url.query.get("host") or url.host), url.port or 5432

    def relay(plain: socket.socket) -> None:
        while (asked := plain.recv(8)) == _KERBEROS:
            plain.sendall(b"N")
        if asked != _TLS:
            return
        plain.sendall(b"S")
        with context.wrap_socket(plain, server_side=True) as client, server() as postgres:
            threading.Thread(target=_pump, args=(postgres, client), daemon=True).start()
            _pump(client, postgres)

    def server() -> socket.socket:
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        found = socket.socket(socket.AF_UNIX)
        found.connect(f"{host}/.s.PGSQL.{port}")
        return found

    with served(relay) as found:
        yield found


def at(parts: SplitResult, host: str, port: int) -> str:
    """The URL with TLS, and with this host and port."""
    login = parts.netloc.rpartition("@")[0]
    return parts._replace(scheme=f"{parts.scheme}s", netloc=f"{login}@{host}:{port}".lstrip("@")).geturl()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
