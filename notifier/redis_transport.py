"""kombu's transport for Redis-protocol brokers, with one thing mended: a closed channel says that it is closed.

When its connection is lost, a worker closes the channels, which puts back the tasks in hand; the tasks themselves
go on, and are acknowledged later. Both need a connection. If the server is dead, closing one channel can fail and
leave the others half-closed: kombu 5.7 then looks for the host's name where nothing is any more. An AttributeError
is none of its connection errors, so Celery takes it for a bug and ends the worker. Of a lost connection it knows
what to do: it connects again. The tasks come back after the visibility timeout, and find nothing left to claim.
"""

from __future__ import annotations

from typing import Any

import kombu
from kombu.transport import redis as stock
from redis.exceptions import ConnectionError as ConnectionLost


class Channel(stock.Channel):  # type: ignore[misc]  # kombu's types are skipped
    """Whatever needs a connection, asks here for its parameters first."""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        # A closed channel has no transport; a half-closed one has a transport without a client.
        if self.connection is None or self.connection.client is None:
            raise ConnectionLost("the channel is closed")
        parameters: dict[str, Any] = super()._connparams(asynchronous)
        return parameters


class Transport(stock.Transport):  # type: ignore[misc]  # kombu's types are skipped
    """kombu's, with our channels."""

    Channel = Channel


class Connection(kombu.Connection):  # type: ignore[misc]  # kombu's types are skipped
    """Takes our transport where kombu would take its own for Redis.

    Celery's setting `broker_transport` would do that too, but in place of the URL's scheme: rediss:// would be
    spoken without TLS, and Flower would not know what broker it is.
    """

    def get_transport_cls(self) -> type[Any]:
        """The class for this connection's URL."""
        found: type[Any] = super().get_transport_cls()
        return Transport if found is stock.Transport else found
