"""Finds out who published a message on RabbitMQ.

RabbitMQ accepts a message only if its property `user_id` is absent or names the user of the connection, so the
property can be trusted (https://www.rabbitmq.com/docs/validated-user-id). A message that an operator publishes
again cannot carry its first publisher there. It carries the user of the operator's tool and, in the header
`VOUCHED`, the user that the tool found in the message before. The header counts only if it comes from the
service's own user, who may write to every queue anyway. From others it is ignored.

A Redis-protocol broker does not know the user of a message.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kombu import Connection

from notifier.broker import topology

#: Header of republished messages: the broker user who first published them.
VOUCHED = "x-notifier-broker-user"

#: Login methods that use the URL's user. With other methods (a client certificate) the URL does not show the user.
_BY_NAME = ("PLAIN", "AMQPLAIN")
#: The user of a URL without one.
_DEFAULT_USER = "guest"


def user_of(connection: Connection) -> str:
    """The name by which RabbitMQ knows this connection, from its URL. "": the URL does not say."""
    if (connection.login_method or _BY_NAME[0]).upper() not in _BY_NAME:
        return ""
    return connection.userid or _DEFAULT_USER


def users_of_url(url: str) -> frozenset[str]:
    """The names that connections of this URL may have: one for each host, usually all the same."""
    url = topology.verified(url)
    if topology.is_redis(url):
        return frozenset()
    # A host after the first may come without a scheme, and then has the first one's user.
    parts = [part for part in url.split(";") if "://" in part]
    return frozenset(filter(None, (user_of(Connection(part)) for part in parts)))


def own_users(url: str, known_as: str | None) -> frozenset[str]:
    """The service's own names: `known_as` if it is given ("": none), else the user of the broker URL."""
    if known_as is None:
        return users_of_url(url)
    return frozenset(filter(None, (known_as,)))


def publisher(user_id: object, headers: Mapping[str, Any], own: Collection[str]) -> str | None:
    """The user who first published a message. None: unknown."""
    if not isinstance(user_id, str) or not user_id:
        return None
    vouched = headers.get(VOUCHED)
    if user_id in own and isinstance(vouched, str) and vouched:
        return vouched
    return user_id


def without_voucher(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    if VOUCHED not in headers:
        return headers
    return {name: value for name, value in headers.items() if name != VOUCHED}
