"""The interface between delivery and a provider: one call takes an `Outgoing` and returns a `Receipt` or raises.

A provider is one folder and one entry point of the group `notifier.providers`. It answers with a receipt or one of
the four `SendError`s, keeps its own connections, sets a deadline on every call, and never retries: delivery
decides when and where to try again. By implementing `Queues`, `Reconciles`, `Reports` or `CallsBack` it says what
else it can do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, runtime_checkable
from uuid import UUID

from notifier.domain.errors import SendError
from notifier.domain.statuses import Channel, Reason, Status
from notifier.providers.options import ProviderOptions

OptionsT = TypeVar("OptionsT", bound=ProviderOptions)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file sent with a mail."""

    name: str
    #: "application/pdf", "text/csv; charset=utf-8".
    content_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One notification, rendered, on its way to one provider."""

    notification_id: UUID
    #: From 1.
    attempt: int
    #: Address (display name allowed) or E.164 number.
    to: str
    #: E-mail: the From address, display name allowed. SMS: a number, an alphanumeric sender or a service id.
    sender: str
    #: Text of the SMS, or text part of the mail.
    text: str
    #: Subject of the mail; empty for SMS.
    subject: str = ""
    #: HTML part of the mail; None leaves it out.
    html: str | None = None
    #: BCP 47 of the text, for Content-Language.
    locale: str = ""
    #: None leaves the header out.
    reply_to: str | None = None
    #: Mail: the envelope sender, where bounces go; None: the From address.
    return_path: str | None = None
    #: Mail: what the recipient's mail program calls to unsubscribe; None: they cannot.
    unsubscribe_url: str | None = None
    #: The provider should drop the message after this, if it can; None: never. From the database's clock: that of
    #: this machine may be wrong.
    seconds_to_expiry: float | None = None
    #: Number of messages that the network makes of an SMS; 1 for a mail.
    segments: int = 1
    #: Files sent with a mail, in order.
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The provider's acceptance."""

    #: The provider's own id of the message: Twilio's SID, the queue id in an SMTP answer.
    provider_message_id: str
    #: The provider's words, for the record.
    detail: str = ""


#: A provider may still create the message this long after the end of a call. Seconds.
LATEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sought:
    """An attempt that ended as `OutcomeUnknown`, or without any result: did the provider take it?"""

    notification_id: UUID
    attempt: int
    #: As in the `Outgoing` of the attempt.
    to: str
    sender: str
    text: str
    #: When the call began, by the database's clock.
    started_at: datetime
    #: When it ended; None: unknown, as after the death of a worker.
    finished_at: datetime | None = None
    #: Ids that the provider gave to other attempts, for this or another notification to the same recipient: one
    #: message never stands for two attempts.
    exclude: frozenset[str] = frozenset()
    #: Now, by the same clock as `started_at`; None: this machine's.
    asked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a provider says later about a message that it took: by a webhook, or when asked."""

    provider_message_id: str
    #: For the record, without personal data: "undelivered: handset cannot be reached now (code 30003)".
    words: str
    #: `sent`: it has the message; `delivered` or `undelivered`: how it ended; None: a word that we do not know.
    status: Status | None
    #: Why it did not arrive.
    reason: Reason | None = None
    #: The recipient should not be sent to again.
    suppress: bool = False
    #: By the provider's clock.
    occurred_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        return self.status in (Status.DELIVERED, Status.UNDELIVERED)


class Provider(Protocol):
    """What delivery calls. Created in the event loop that calls it, and used from that loop only."""

    #: Unique among the configured providers.
    name: str
    channel: Channel

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Self:
        """Create one from its table in notifier.toml (all values are strings). Opens no connection.

        Raises:
            ConfigurationError: naming the option that is missing or wrong, and what to put there.
        """
        ...

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        """Send it within `deadline_seconds` of the call, waiting for a free connection included.

        Raises:
            Rejected, Throttled, Unavailable, OutcomeUnknown: see `notifier.domain.errors`. Nothing else.
        """
        ...

    async def check(self, *, deadline_seconds: float) -> str:
        """Connect and log in without sending. Returns one line for `notifier doctor`; raises as `send`."""
        ...

    async def close(self) -> None:
        """Close every connection. Calls under way may fail."""
        ...


class QueuedCall(Protocol):
    """One call in the hands of a provider that keeps a queue."""

    outgoing: Outgoing
    #: It begins no later than then, on the monotonic clock, and has ended a deadline later.
    start_by: float

    def begin(self) -> SendError | None:
        """Ask right before the first byte of it goes out. What comes back, if anything, is how it ends instead: it
        must not be made any more."""
        ...

    def end(self, answer: Receipt | SendError) -> None:
        """Tell what came of it, once. Raises nothing."""
        ...


@runtime_checkable
class Queues(Protocol):
    """What a provider may implement besides `Provider`, if it keeps a queue of its own: then there is no task for
    each call. `Provider.send` remains, for single calls and for those with a turn under a rate limit."""

    def put(self, call: QueuedCall, *, deadline_seconds: float) -> None:
        """Take it, and return at once; it is ended exactly once, whatever happens.

        A call waits for a connection no longer than `deadline_seconds`, and takes no longer than that once it has
        begun. It is begun once more only if the first beginning was surely in vain.
        """
        ...


@runtime_checkable
class Reconciles(Protocol):
    """What a provider may implement besides `Provider`, if it can look up what it has accepted.

    SMTP has no such command, and Vonage's SMS API no search: their unknown outcomes wait for a receipt, and then
    for the template's policy.
    """

    async def find(self, sought: Sought, *, deadline_seconds: float) -> Sequence[Receipt]:
        """Every message that may be it, in any state, the likeliest first; none if the provider certainly has
        none.

        There may be several, as the same text may have gone to the same number more than once; their number
        decides whether they can be attributed. If `finished_at` is None, the call is assumed to have taken
        `deadline_seconds`. A message may be created until `LATEST_SECONDS` after the end of the call.

        Raises:
            Unavailable: it cannot tell now; `retry_after_seconds` is set if it knows when it can.
        """
        ...


def id_space(provider: object, name: str | None = None) -> str | None:
    """The space in which each id of this provider's messages is unique for ever; None: ids may be reused.

    A provider says so by an attribute `id_space`, which all of one kind share, as two tables for one account see
    the same messages. One that can look messages up has its own name unless it says otherwise. The record keeps
    messages with such ids apart: each belongs to one attempt. For a class, `name` is its provider's.
    """
    own: str | None = getattr(provider, "id_space", None)
    if own or not isinstance(provider, Reconciles):
        return own or None
    return name or str(getattr(provider, "name", "")) or None


@runtime_checkable
class Reports(Protocol):
    """What a provider may implement besides `Provider`, if it can be asked how a message ended."""

    async def ask(self, provider_message_id: str, *, deadline_seconds: float) -> Report:
        """How the message stands now.

        Raises:
            Unavailable: it cannot tell now.
        """
        ...


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A provider's call of one of its webhooks."""

    #: What follows the public URL, unchanged: from the first slash on, with the query.
    path: str
    #: The values in the path for the braces of `Webhook.path`.
    parameters: Mapping[str, Any]
    #: By names in lower case.
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """A report that came by a webhook, with the attempt that the URL names."""

    notification_id: UUID
    attempt: int
    report: Report
    #: Number of reports to expect: one for each part of a text, if the provider reports on parts.
    parts: int = 1


class Wish(StrEnum):
    """What a recipient who wrote to one of our numbers wants."""

    STOP = "STOP"  #: no more messages
    START = "START"  #: messages again
    HELP = "HELP"  #: to know who we are; the provider answers by itself


@dataclass(frozen=True, slots=True)
class InboundWish:
    """A recipient's wish, passed on by a provider."""

    wish: Wish
    #: Who wrote it.
    number: str
    #: The number of ours that they wrote to, and the service that it belongs to.
    senders: frozenset[str]


class Webhook(ABC, Generic[OptionsT]):
    """One call of `POST /webhooks/<kind>/<path>`. Created for each request.

    Anybody can call it, so nothing is trusted before `is_signed_by` has confirmed a configured provider.
    """

    #: What follows the kind. `{name}` stands for a whole number, `{name:uuid}` for an id.
    path: ClassVar[str]
    #: Body and content type of the answer to a signed call; None: 204 without a body.
    answer: ClassVar[tuple[str, str] | None] = None

    def __init__(self, request: WebhookRequest) -> None:
        self.request = request

    @abstractmethod
    def is_signed_by(self, options: OptionsT) -> bool:
        """Whether the account with these options made this call. Compare in constant time."""

    def is_fresh(self, clock: Callable[[], datetime]) -> bool:
        """Whether it was signed recently, if the signed part holds the time. `clock` asks the database."""
        return True

    def reports(self) -> Sequence[AttemptReport]:
        """Reports on our messages. Called only if the call is signed and fresh, as `wishes` is."""
        return ()

    def wishes(self) -> Sequence[InboundWish]:
        """Wishes of recipients who wrote to our numbers."""
        return ()


@runtime_checkable
class CallsBack(Protocol):
    """What a provider may implement besides `Provider`, if it calls webhooks of ours."""

    #: The model of its table in notifier.toml; checking a signature needs it.
    options_model: ClassVar[type[ProviderOptions]]
    webhooks: ClassVar[Sequence[type[Webhook[Any]]]]

    @property
    def has_webhook(self) -> bool:
        """Whether the provider calls us and we can check its signature, so that a report can be expected."""
        ...
