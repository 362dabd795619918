"""What a producer or an API key may send, and how it is proven which producer sent a message."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from notifier.domain.errors import Fault
from notifier.domain.statuses import Channel, Lane

#: A pattern of template names, as `order_*`. A plain name is a pattern, too.
TEMPLATE_PATTERN = re.compile(r"[A-Za-z0-9._*?-]{1,100}\Z")


class ProducerProof(StrEnum):
    """How the service knows that a notification is from the producer that it names."""

    BROKER_USER = "broker_user"  #: RabbitMQ checked who published it, and that user is the producer's
    API_KEY = "api_key"  #: it came over HTTP, with one of the producer's keys
    SERVICE = "service"  #: the service made it itself
    OPERATOR = "operator"  #: an operator wrote it, in place of a rejected message
    NONE = "none"  #: no proof: only the message itself says so


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message is from."""

    proof: ProducerProof
    #: Which credential or person of its producer sent it, see `sent_by` in docs/reference/database.md. None:
    #: nobody can say.
    sent_by: str | None = None
    #: A note for the first event of its story; None: none.
    note: str | None = None
    #: It came with a test key.
    is_test: bool = False


@dataclass(frozen=True, slots=True)
class SendingRights:
    """What a producer or key may send; None: everything of that kind."""

    channels: Collection[str] | None = None
    lanes: Collection[str] | None = None
    #: Patterns of template names, as `order_*`.
    templates: Collection[str] | None = None
    #: Names of sender identities.
    senders: Collection[str] | None = None

    def contain(self, channel: str, template: str) -> bool:
        """Whether these rights include this template of this channel. What a key may not send, it may not see."""
        return _is_among(channel, self.channels) and self._has_template(template)

    def own_html_faults(self, producer: str) -> list[Fault]:
        """Why this producer may not use a template that writes the producer's own HTML as it is. Such a mail can
        say anything in the name of a sender identity, so the rights must name the template; None is not enough."""
        if self.templates is not None:
            return []  # `faults` says whether this template is among them.
        remedy = f"have an operator add it to `templates` of [producers.{producer}] in notifier.toml"
        problem = "takes HTML that the producer wrote; only producers whose `templates` name it may use it"
        return [Fault("template", "template_not_allowed", problem, f"Use another template, or {remedy}")]

    def _has_template(self, template: str) -> bool:
        return self.templates is None or any(is_matching(template, one) for one in self.templates)

    def faults(
        self,
        *,
        owner: str,
        remedy: str,
        channel: Channel,
        lane: Lane,
        template: str,
        identities: Mapping[str, str] | None = None,
    ) -> list[Fault]:
        """Why a message is outside of these rights.

        `identities` are the sender identities that it uses, by the field that names them. `owner` and `remedy` are
        words for the texts: whose rights they are, and what else might help.
        """
        found = []
        if not _is_among(channel, self.channels):
            fix = _fix("Send on", self.channels, remedy)
            found.append(Fault("channel", "channel_not_allowed", f"is not a channel of {owner}", fix))
        if not _is_among(lane, self.lanes):
            fix = _fix("Send on", self.lanes, remedy)
            found.append(Fault("lane", "lane_not_allowed", f"is not a lane of {owner}", fix))
        if not self._has_template(template):
            fix = _fix("Use", self.templates, remedy)
            found.append(Fault("template", "template_not_allowed", f"is not a template of {owner}", fix))
        for field, name in (identities or {}).items():
            if not _is_among(name, self.senders):
                fix = _fix("Name", self.senders, remedy)
                found.append(Fault(field, "sender_not_allowed", f"is not a sender identity of {owner}", fix))
        return found


def is_matching(template: str, pattern: str) -> bool:
    return fnmatchcase(template, pattern)


def _is_among(value: str, allowed: Collection[str] | None) -> bool:
    return allowed is None or value in allowed


def _fix(verb: str, allowed: Collection[str] | None, remedy: str) -> str:
    return f"{verb} {' or '.join(sorted(allowed or ()))}, or {remedy}"
