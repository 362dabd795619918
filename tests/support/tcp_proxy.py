"""A TCP proxy between a client and its broker that can cut, freeze or drip the traffic."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit


class TcpProxy:
    """Forwards to one server. `cut` ends every connection, `freeze` swallows their traffic, and `drip` answers
    with a byte now and then."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._frozen = threading.Event()
        self._sockets: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection, on both sides."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def freeze(self) -> None:
        """From now on nothing passes. Connections stay open, and new ones are accepted."""
        self._frozen.set()

    def drip(self) -> None:
        """From now on clients get one byte every 50 ms, and nothing else."""
        self.freeze()
        threading.Thread(target=self._drip, args=(self._sockets[::2],), daemon=True).start()

    def _drip(self, clients: list[socket.socket]) -> None:
        with contextlib.suppress(OSError):
            while self._frozen.is_set():
                for client in clients:
                    client.sendall(b"+")
                time.sleep(0.05)

    def thaw(self) -> None:
        """Let everything pass again. Clients that lost bytes must connect again."""
        self._frozen.clear()

    def stop(self) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = self._connect()
            except OSError:
                return
            self.connections += 1
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._target
        if not host.startswith("/"):
            return socket.create_connection(self._target)
        # The folder of PostgreSQL's sockets.
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self._frozen.is_set():
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


@contextlib.contextmanager
def tcp_proxy(host: str, port: int) -> Iterator[TcpProxy]:
    """A proxy for one test."""
    proxy = TcpProxy(host, port)
    try:
        yield proxy
    finally:
        proxy.stop()


@contextlib.contextmanager
def through_proxy(broker_url: str) -> Iterator[tuple[TcpProxy, str]]:
    """A proxy, and the broker's URL through it."""
    parts = urlsplit(broker_url)
    assert parts.hostname
    with tcp_proxy(parts.hostname, parts.port or 0) as proxy:
        login = parts.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{proxy.port}" if login else f"127.0.0.1:{proxy.port}"
        yield proxy, parts._replace(netloc=netloc).geturl()
