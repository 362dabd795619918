"""Who published a message on RabbitMQ.

RabbitMQ lets a message through only if its property `user_id` is absent or names the user of the connection, so
what stands there is true (https://www.rabbitmq.com/docs/validated-user-id). A message that an operator publishes
again cannot carry the name of its first publisher there: it carries the operator's tool's own, and beside it, in
the header `VOUCHED`, whom that tool found in the message before. The header counts only from the service's own
user, who may write to every queue anyway; whatever others put into it is nothing.

A Redis-protocol broker knows no user of a message.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kombu import Connection

from notifier.broker import topology

#: Header of messages that were published again: the broker user who published them first.
VOUCHED = "x-notifier-broker-user"

#: How the user of a URL becomes that of the connection. With others (a client certificate) the URL does not say.
_BY_NAME = ("PLAIN", "AMQPLAIN")
#: Who a URL without a user logs in as.
_DEFAULT_USER = "guest"


def user_of(connection: Connection) -> str:
    """The name that RabbitMQ knows this connection by, as its URL has it; "": that does not say."""
    if (connection.login_method or _BY_NAME[0]).upper() not in _BY_NAME:
        return ""
    return connection.userid or _DEFAULT_USER


def users_of_url(url: str) -> frozenset[str]:
    """The names that connections of this URL may have: one for each host in it, most often the same."""
    if topology.is_redis(url):
        return frozenset()
    # A host after the first may stand without a scheme, and then has the first one's user.
    parts = [part for part in url.split(";") if "://" in part]
    return frozenset(filter(None, (user_of(Connection(part)) for part in parts)))


def own_users(url: str, known_as: str | None) -> frozenset[str]:
    """The service's own: that of the broker URL, unless it is `known_as` another; "" is none."""
    if known_as is None:
        return users_of_url(url)
    return frozenset(filter(None, (known_as,)))


def publisher(user_id: object, headers: Mapping[str, Any], own: Collection[str]) -> str | None:
    """The user who published a message first; None: nobody can say."""
    if not isinstance(user_id, str) or not user_id:
        return None
    vouched = headers.get(VOUCHED)
    if user_id in own and isinstance(vouched, str) and vouched:
        return vouched
    return user_id


def without_voucher(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The headers without what anybody may have put there."""
    if VOUCHED not in headers:
        return headers
    return {name: value for name, value in headers.items() if name != VOUCHED}
