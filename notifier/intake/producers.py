"""Checks whether a message is from the producer that it names, and whether that producer may send it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from notifier.broker import topology
from notifier.broker import user_id as broker_user
from notifier.config.logs import log
from notifier.config.structure import Structure
from notifier.domain.errors import ConfigurationError, Fault
from notifier.domain.message import Message
from notifier.domain.producers import ProducerProof, SendingRights
from notifier.domain.statuses import Channel, Lane


class Producers:
    """The producers of notifier.toml. Immutable, so thread-safe."""

    def __init__(
        self, structure: Structure, *, own_users: Collection[str] = (), broker_tells_users: bool = True
    ) -> None:
        """`own_users`: the service's own user names on the broker. A Redis-protocol broker does not tell who
        publishes."""
        self._structure = structure
        self._own_users = own_users
        self._broker_tells_users = broker_tells_users
        self._producer_of = {
            user: name for name, table in structure.producers.items() for user in table.broker_user
        }

    def publisher(self, user_id: object, headers: Mapping[str, Any]) -> str | None:
        """The broker user who first published a message. None: unknown."""
        return broker_user.publisher(user_id, headers, self._own_users) if self._broker_tells_users else None

    def proof(self, producer: str, user: str | None) -> ProducerProof:
        """The proof that `user`, as the publisher of a message, gives for this producer."""
        is_its_user = user is not None and self._producer_of.get(user) == producer
        return ProducerProof.BROKER_USER if is_its_user else ProducerProof.NONE

    def proof_faults(self, producer: str, user: str | None) -> list[Fault]:
        """Why a message that `user` published is not accepted as a message of this producer."""
        if not self._broker_tells_users or self.proof(producer, user) is ProducerProof.BROKER_USER:
            return []
        table = self._structure.producers.get(producer)
        is_required = self._structure.require_proof or (table is not None and bool(table.broker_user))
        if user is not None and user in self._producer_of:
            return [_not_proven("the broker user who published it belongs to another producer", _OWN_NAME)]
        if not is_required:
            return []
        if user is None:
            return [_not_proven("nothing proves that it is from this producer: it has no user_id", _SET_USER)]
        return [_not_proven("the broker user who published it is not one of this producer's", _ADD_USER)]

    def limit_faults(
        self, message: Message, channel: Channel, template_sender: Callable[[], str | None]
    ) -> list[Fault]:
        """The rights of its producer that the message exceeds. `template_sender` returns the sender identity of
        its template."""
        table = self._structure.producers.get(message.producer)
        if table is None:
            return []
        return table.rights.faults(
            owner=f"the producer {message.producer}",
            remedy=f"have it added to [producers.{message.producer}] in notifier.toml",
            channel=channel,
            lane=message.lane or Lane.NORMAL,
            template=message.template,
            identities=self._identities(message, template_sender) if table.senders else None,
        )

    def own_html_faults(self, message: Message) -> list[Fault]:
        """Faults of a message whose template writes the producer's own HTML as it is."""
        table = self._structure.producers.get(message.producer)
        rights = SendingRights(templates=None if table is None else table.templates)
        return rights.own_html_faults(message.producer)

    def _identities(self, message: Message, template_sender: Callable[[], str | None]) -> dict[str, str]:
        """By field: the sender identity that the message goes out as, and the one for replies."""
        names = {"sender": self._structure.sender_name(message.sender or template_sender())}
        return names if message.reply_to is None else names | {"reply_to": message.reply_to}


def check_broker(structure: Structure, broker_url: str) -> None:
    """Refuse a broker that cannot prove producers, if proof is required.

    Raises:
        ConfigurationError: every message would be refused.
    """
    if structure.require_proof and topology.is_redis(broker_url):
        raise ConfigurationError(
            "require_proof is on, and a Redis-protocol broker cannot tell who publishes, so every message on it "
            "would be refused; use RabbitMQ, or take require_proof out of notifier.toml",
            setting="require_proof",
        )


def warn_of_producers(structure: Structure, broker_url: str) -> None:
    """Log that this broker proves no producer, if notifier.toml names broker users.

    Raises:
        ConfigurationError: see `check_broker`.
    """
    check_broker(structure, broker_url)
    names_users = any(table.broker_user for table in structure.producers.values())
    if names_users and topology.is_redis(broker_url):
        log.warning("producers.not_proven", reason=in_words(structure, broker_url))


def in_words(structure: Structure, broker_url: str) -> str:
    """For people: which producers are proven on this broker."""
    if topology.is_redis(broker_url):
        return "taken at their word: a Redis-protocol broker cannot tell who publishes"
    proven = [
        f"{name} ({', '.join(table.broker_user)})"
        for name, table in sorted(structure.producers.items())
        if table.broker_user
    ]
    others = "refused" if structure.require_proof else "taken at their word"
    if not proven:
        return f"{others}: notifier.toml names no broker user of a producer"
    return f"proven by their broker users: {', '.join(proven)}; others are {others}"


_OWN_NAME = "Publish under the name of your own producer"
_SET_USER = "Set the message's property user_id to the name of the broker user that you publish as"
_ADD_USER = "Publish as one of its users, or have yours added to its broker_user in notifier.toml"


def _not_proven(problem: str, fix: str) -> Fault:
    return Fault("producer", "producer_not_proven", problem, fix)
