"""The interface between delivery and a provider: one call takes an `Outgoing` and returns a `Receipt` or raises.

A provider is one folder and one entry point in the group `notifier.providers`. It answers with a receipt or one of
the four `SendError`s, keeps its own connections, limits the time of every call, and never retries: delivery
decides when and where to try again. If a provider can do more, it implements `Queues`, `Reconciles`, `Reports` or
`CallsBack`.
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
    #: Such as "application/pdf" or "text/csv; charset=utf-8".
    content_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One rendered notification, to be sent by one provider."""

    notification_id: UUID
    #: Number of the attempt, from 1.
    attempt: int
    #: E-mail address (a display name is allowed) or E.164 number.
    to: str
    #: E-mail: the From address, with an optional display name. SMS: a number, an alphanumeric sender or a service
    #: id.
    sender: str
    #: Text of the SMS, or the text part of the mail.
    text: str
    #: Subject of the mail; "" for SMS.
    subject: str = ""
    #: HTML part of the mail; None: there is none.
    html: str | None = None
    #: Language of the text as a BCP 47 tag, for Content-Language.
    locale: str = ""
    #: E-mail: the Reply-To address; None: no such header.
    reply_to: str | None = None
    #: E-mail: the envelope sender, where bounces go; None: the From address.
    return_path: str | None = None
    #: E-mail: the URL that the recipient's mail program calls to unsubscribe; None: recipients cannot unsubscribe.
    unsubscribe_url: str | None = None
    #: The provider should drop the message after so many seconds, if it can; None: never. Computed with the
    #: database's clock, because this machine's clock may be wrong.
    seconds_to_expiry: float | None = None
    #: Number of messages into which the network splits an SMS; 1 for a mail.
    segments: int = 1
    #: Files to send with a mail, in order.
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """A provider's acceptance of a message."""

    #: The provider's id of the message: Twilio's SID, or the queue id in an SMTP answer.
    provider_message_id: str
    #: What the provider said, for the record.
    detail: str = ""


#: How long after the end of a call the provider may still create the message. Seconds.
LATEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sought:
    """An attempt without a certain result: it ended as `OutcomeUnknown`, or nothing was recorded. Did the provider
    take the message?"""

    notification_id: UUID
    attempt: int
    #: As in the attempt's `Outgoing`.
    to: str
    sender: str
    text: str
    #: When the call began, by the database's clock.
    started_at: datetime
    #: When the call ended; None: unknown, for example because the worker died.
    finished_at: datetime | None = None
    #: Ids that the provider gave to other attempts, for this or another notification to the same recipient. One
    #: message never stands for two attempts.
    exclude: frozenset[str] = frozenset()
    #: The current time, by the same clock as `started_at`; None: use this machine's clock.
    asked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a provider says about a message after taking it: by a webhook, or when asked."""

    provider_message_id: str
    #: The report in words, without personal data, for the record: "undelivered: handset cannot be reached now
    #: (code 30003)".
    words: str
    #: `sent`: the provider has the message. `delivered` or `undelivered`: how it ended. None: a word that we do
    #: not know.
    status: Status | None
    #: Why the message did not arrive.
    reason: Reason | None = None
    #: The recipient should not be sent to again.
    suppress: bool = False
    #: When it happened, by the provider's clock.
    occurred_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        return self.status in (Status.DELIVERED, Status.UNDELIVERED)


class Provider(Protocol):
    """What delivery calls. A provider is created in the event loop that calls it, and used only there."""

    #: The provider's name; unique among the configured providers.
    name: str
    channel: Channel

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Self:
        """Create a provider from its table in notifier.toml, in which all values are strings. Opens no connection.

        Raises:
            ConfigurationError: an option is missing or wrong; the text names it and says what to put there.
        """
        ...

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        """Send the message within `deadline_seconds` of this call, including any wait for a free connection.

        Raises:
            Rejected, Throttled, Unavailable, OutcomeUnknown: see `notifier.domain.errors`. Nothing else may be
                raised.
        """
        ...

    async def check(self, *, deadline_seconds: float) -> str:
        """Connect and log in without sending. Returns one line for `notifier doctor`. Raises the errors of
        `send`."""
        ...

    async def close(self) -> None:
        """Close every connection. Calls in progress may fail."""
        ...


class QueuedCall(Protocol):
    """One call that waits in the queue of a provider that implements `Queues`."""

    outgoing: Outgoing
    #: The latest time to begin the call, on the monotonic clock. It must end within one deadline after that.
    start_by: float

    def begin(self) -> SendError | None:
        """The provider calls this right before it sends the first byte. If it returns an error, the call has ended
        with that error and must not be made any more."""
        ...

    def end(self, answer: Receipt | SendError) -> None:
        """The provider calls this once, with the call's result. Raises nothing."""
        ...


@runtime_checkable
class Queues(Protocol):
    """Optional, for a provider that has its own queue, so that delivery needs no task for each call.
    `Provider.send` remains for single calls, and for calls that have a turn under a rate limit."""

    def put(self, call: QueuedCall, *, deadline_seconds: float) -> None:
        """Queue the call and return at once. The provider ends it exactly once, whatever happens.

        A call waits for a connection no longer than `deadline_seconds`, and takes no longer than that once it has
        begun. It may begin a second time only if the first beginning certainly had no effect.
        """
        ...


@runtime_checkable
class Reconciles(Protocol):
    """Optional, for a provider that can look up the messages it has accepted.

    SMTP has no such command, and Vonage's SMS API has no search. Their unknown outcomes wait for a receipt, and
    then for the template's policy.
    """

    async def find(self, sought: Sought, *, deadline_seconds: float) -> Sequence[Receipt]:
        """Return every message that may belong to this attempt, in any state, the likeliest first. Return nothing
        if the provider certainly has no such message.

        There may be several, because the same text may have gone to the same number more than once; their number
        decides whether they can be attributed. If `finished_at` is None, assume that the call took
        `deadline_seconds`. A message may be created until `LATEST_SECONDS` after the end of the call.

        Raises:
            Unavailable: the provider cannot tell now; `retry_after_seconds` is set if it is known when it can.
        """
        ...


def id_space(provider: object, name: str | None = None) -> str | None:
    """The name of the space in which this provider's message ids are unique for ever; None: ids may be reused.

    A provider declares it by an attribute `id_space`. All providers of one kind share the space, because two
    tables for one account see the same messages. A provider that can look messages up uses its own name unless it
    declares another space. The record keeps messages with such ids apart: each belongs to one attempt. If
    `provider` is a class, give the provider's `name`.
    """
    own: str | None = getattr(provider, "id_space", None)
    if own or not isinstance(provider, Reconciles):
        return own or None
    return name or str(getattr(provider, "name", "")) or None


@runtime_checkable
class Reports(Protocol):
    """Optional, for a provider that can be asked how a message ended."""

    async def ask(self, provider_message_id: str, *, deadline_seconds: float) -> Report:
        """Return the message's current state.

        Raises:
            Unavailable: the provider cannot tell now.
        """
        ...


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A provider's call of one of its webhooks."""

    #: Path and query as they follow the public URL, from the first slash on, unchanged.
    path: str
    #: Values of the placeholders in `Webhook.path`.
    parameters: Mapping[str, Any]
    #: Headers, with names in lower case.
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """A report that came by a webhook, with the attempt that its URL names."""

    notification_id: UUID
    attempt: int
    report: Report
    #: Number of reports to expect: one for each part of a text, if the provider reports on each part.
    parts: int = 1


class Wish(StrEnum):
    """What a recipient wants who wrote to one of our numbers."""

    STOP = "STOP"  #: no more messages
    START = "START"  #: messages again
    HELP = "HELP"  #: to know who we are; the provider answers this itself


@dataclass(frozen=True, slots=True)
class InboundWish:
    """A recipient's wish, passed on by a provider."""

    wish: Wish
    #: The number that wrote.
    number: str
    #: Our number that it wrote to, and the service that this number belongs to.
    senders: frozenset[str]


class Webhook(ABC, Generic[OptionsT]):
    """One call of `POST /webhooks/<kind>/<path>`. An object is created for each request.

    Anybody can call a webhook, so nothing in the request is trusted until `is_signed_by` has confirmed that it
    comes from a configured provider.
    """

    #: The path after the kind. `{name}` stands for a whole number, `{name:uuid}` for an id.
    path: ClassVar[str]
    #: Body and content type of the answer to a signed call; None: 204 without a body.
    answer: ClassVar[tuple[str, str] | None] = None

    def __init__(self, request: WebhookRequest) -> None:
        self.request = request

    @abstractmethod
    def is_signed_by(self, options: OptionsT) -> bool:
        """Whether the account with these options signed the request. Compare in constant time."""

    def is_fresh(self, clock: Callable[[], datetime]) -> bool:
        """Whether the request was signed recently, if the signed part contains the time. `clock` returns the
        database's time."""
        return True

    def reports(self) -> Sequence[AttemptReport]:
        """Reports on our messages. Called only if the request is signed and fresh, like `wishes`."""
        return ()

    def wishes(self) -> Sequence[InboundWish]:
        """Wishes of recipients who wrote to our numbers."""
        return ()


@runtime_checkable
class CallsBack(Protocol):
    """Optional, for a provider that calls our webhooks."""

    #: The model of its table in notifier.toml; needed to check signatures.
    options_model: ClassVar[type[ProviderOptions]]
    webhooks: ClassVar[Sequence[type[Webhook[Any]]]]

    @property
    def has_webhook(self) -> bool:
        """Whether the provider calls us and we can check its signature. If so, a report can be expected."""
        ...
