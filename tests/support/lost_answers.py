"""A connection to PostgreSQL that loses answers: the statement is executed, and the connection breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import make_url

from chaos.proxy import Link, Proxy, Strike, to_port, to_socket


class LossyWay:
    """Loses the answers that it is told to lose, and no others."""

    def __init__(self, proxy: Proxy, url: str) -> None:
        self._proxy = proxy
        self.url = url
        self.lost = 0

    def lose(self, *words: str, times: int, then_refuse: bool = False) -> None:
        """Lose the next `times` answers to statements with one of these words: to the statement if it commits
        itself, otherwise to the commit.

        `then_refuse`: after the last of them, refuse new connections until `heal`.
        """
        #: Links in a transaction, and whether it contains such a statement.
        inside: dict[Link, bool] = {}
        wanted = self.lost + times

        def tap(link: Link, from_client: bool, data: bytes) -> Strike | None:
            if not from_client or self.lost == wanted:
                return None
            if b"BEGIN\0" in data:
                inside[link] = False
            is_one = any(word.encode() in data for word in words)
            if link in inside:
                inside[link] |= is_one
                is_over = b"COMMIT\0" in data or b"ROLLBACK\0" in data
                is_one = inside.pop(link) and b"COMMIT\0" in data if is_over else False
            return Strike(lambda: strike(link)) if is_one else None

        def strike(link: Link) -> None:
            self.lost += 1
            self._proxy.refuses = then_refuse and self.lost == wanted
            self._proxy.lose_answer(link)

        self._proxy.tap = tap

    def heal(self) -> None:
        """End all faults."""
        self._proxy.heal()


@contextmanager
def lossy_way(database_url: str, loop: asyncio.AbstractEventLoop) -> Iterator[LossyWay]:
    """A way to that database, on a loop that runs in another thread."""
    url = make_url(database_url)
    folder, port = url.query.get("host"), url.port or 5432
    connect = to_socket(lambda: f"{folder}/.s.PGSQL.{port}") if folder else to_port(lambda: port)
    proxy = Proxy(connect)
    asyncio.run_coroutine_threadsafe(proxy.start(), loop).result()
    through = url.set(host="127.0.0.1", port=proxy.port, query={k: v for k, v in url.query.items() if k != "host"})
    try:
        yield LossyWay(proxy, through.render_as_string(hide_password=False))
    finally:
        asyncio.run_coroutine_threadsafe(proxy.stop(), loop).result()
