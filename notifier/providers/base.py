"""The seam between delivery and a provider: one call takes an `Outgoing` and returns a `Receipt` or raises.

A provider is one folder and one entry point of the group `notifier.providers`. It answers with exactly one of the
four `SendError`s or a receipt, keeps its own connections, forces a deadline on every call, and never retries:
when and where to try again is decided above it. What else it can do, it says by
implementing `Queues`, `Reconciles`, `Reports` or `CallsBack`.
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
    """A file that goes with a mail."""

    name: str
    #: "application/pdf", "text/csv; charset=utf-8".
    content_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One notification, rendered, on its way to one provider."""

    notification_id: UUID
    #: Number of this attempt, from 1.
    attempt: int
    #: Address (display name allowed) or E.164 number.
    to: str
    #: E-mail: the From address, display name allowed. SMS: a number, an alphanumeric sender or a service id.
    sender: str
    #: Body of the SMS, or the text part of the mail.
    text: str
    #: Subject of the mail; empty for SMS.
    subject: str = ""
    #: HTML part of the mail; None leaves it out.
    html: str | None = None
    #: BCP 47 of the text, for Content-Language.
    locale: str = ""
    #: Address for replies; None leaves the header out.
    reply_to: str | None = None
    #: Mail: where it is returned to if it cannot be delivered, the envelope's sender; None: the From address.
    return_path: str | None = None
    #: Mail: what the recipient's mail program calls to end its kind; None: it is of no kind that can be ended.
    unsubscribe_url: str | None = None
    #: A provider that can should drop the message after this; None: never. Counted from the database's clock, so
    #: that a wrong one of this machine neither drops nor prolongs anything.
    seconds_to_expiry: float | None = None
    #: How many messages the network makes of the text of an SMS; 1 for a mail.
    segments: int = 1
    #: Files that go with a mail, in their order.
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The provider's acceptance."""

    #: The provider's own id of the message: Twilio's SID, the queue id in an SMTP answer.
    provider_message_id: str
    #: The provider's words, for the record.
    detail: str = ""


#: So long after the end of a call a provider may still make a message of what it read. Seconds.
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
    #: When it ended; None if nobody knows, as after the death of a worker.
    finished_at: datetime | None = None
    #: Ids that the provider gave to other attempts, of this notification or of another one to the same recipient:
    #: one message never answers for two attempts.
    exclude: frozenset[str] = frozenset()
    #: Now, by the same clock as `started_at`; None: this machine's.
    asked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a provider says later about a message that it took: by a webhook, or when it is asked."""

    provider_message_id: str
    #: For the record, without personal data: "undelivered: handset cannot be reached now (code 30003)".
    words: str
    #: `sent`: it has the message; `delivered` or `undelivered`: how it ended; None: nothing that we know.
    status: Status | None
    #: Why it did not arrive.
    reason: Reason | None = None
    #: The recipient should not be sent to again.
    suppress: bool = False
    #: The provider's time.
    occurred_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        """Whether it says how the message ended."""
        return self.status in (Status.DELIVERED, Status.UNDELIVERED)


class Provider(Protocol):
    """What delivery calls. Made inside the event loop that calls it, and used from that loop only."""

    #: Unique among the configured providers.
    name: str
    channel: Channel

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Self:
        """Make one from its table in notifier.toml (all values are strings). Opens no connection.

        Raises:
            ConfigurationError: naming the option that is missing or wrong, and what to put there.
        """
        ...

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        """Send it, in at most `deadline_seconds` from the call, waiting for a free connection included.

        Raises:
            Rejected, Throttled, Unavailable, OutcomeUnknown: see `notifier.domain.errors`. Nothing else.
        """
        ...

    async def check(self, *, deadline_seconds: float) -> str:
        """Connect and log in without sending. Returns one line for `notifier doctor`; raises as `send`."""
        ...

    async def close(self) -> None:
        """Close every connection. Sends that are under way may fail."""
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
    """What a provider may implement besides `Provider`, if it can look up what it has taken.

    SMTP does not: RFC 5321 knows no way to ask a server for a mail that it took. Nor does Vonage's SMS API, which
    has no search. Their unknown outcomes wait for a receipt, and then for the template's policy.
    """

    async def find(self, sought: Sought, *, deadline_seconds: float) -> Sequence[Receipt]:
        """Every message that may be it, in whatever state, the likeliest first; none if the provider surely has
        none.

        There may be several: the same words may have gone to the same number more than once. How many there are
        decides whether it can be told whose they are. Where `finished_at` is None the call is taken to have had
        `deadline_seconds` too, and a message may be made until `LATEST_SECONDS` after its end.

        Raises:
            Unavailable: it cannot tell now; `retry_after_seconds` is set if it knows when it can.
        """
        ...


def id_space(provider: object, name: str | None = None) -> str | None:
    """Within which each id of this provider's messages stands for one message, for ever; None: ids may come again.

    A provider says so by an attribute `id_space`: two of one kind have the same one, as two tables for one account
    see the same messages. One that can look messages up has its own name unless it says otherwise. Messages with
    such an id are kept apart in the record: each belongs to one attempt. Of a class, `name` is its provider's.
    """
    own: str | None = getattr(provider, "id_space", None)
    if own or not isinstance(provider, Reconciles):
        return own or None
    return name or str(getattr(provider, "name", "")) or None


@runtime_checkable
class Reports(Protocol):
    """What a provider may implement besides `Provider`, if it can be asked what became of a message."""

    async def ask(self, provider_message_id: str, *, deadline_seconds: float) -> Report:
        """How the message stands now.

        Raises:
            Unavailable: it cannot tell now.
        """
        ...


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A provider's call of one of its webhooks, as it came."""

    #: What follows the public URL, byte for byte: from the first slash on, with the query if there is one.
    path: str
    #: What stands in the path for the braces of `Webhook.path`.
    parameters: Mapping[str, Any]
    #: By names in lower case.
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """A report that came by a webhook, and the attempt that its address names."""

    notification_id: UUID
    attempt: int
    report: Report
    #: How many reports there will be: one for each part of a text, if the provider reports on parts.
    parts: int = 1


class Wish(StrEnum):
    """What a recipient who wrote to one of our numbers wants."""

    STOP = "STOP"  #: no more messages
    START = "START"  #: messages again
    HELP = "HELP"  #: to know who we are; the provider answers by itself


@dataclass(frozen=True, slots=True)
class InboundWish:
    """A recipient's wish, as a provider passed it on."""

    wish: Wish
    #: Who wrote.
    number: str
    #: To whom: our number, and the service that it belongs to.
    senders: frozenset[str]


class Webhook(ABC, Generic[OptionsT]):
    """One call of one address of ours, `POST /webhooks/<kind>/<path>`. Made for each request.

    Anybody can call it, so nothing is believed before `is_signed_by` has said yes for a configured provider.
    """

    #: What follows the kind. `{name}` stands for a whole number, `{name:uuid}` for an id.
    path: ClassVar[str]
    #: Body and content type of the answer to a signed call; None: 204, and no body.
    answer: ClassVar[tuple[str, str] | None] = None

    def __init__(self, request: WebhookRequest) -> None:
        self.request = request

    @abstractmethod
    def is_signed_by(self, options: OptionsT) -> bool:
        """Whether the account with these options made this call. Compare in constant time."""

    def is_fresh(self, clock: Callable[[], datetime]) -> bool:
        """Whether it was signed just now, if what is signed tells the time. `clock` asks the database."""
        return True

    def reports(self) -> Sequence[AttemptReport]:
        """What it says about messages of ours. Called only if it is signed and fresh, as `wishes` is."""
        return ()

    def wishes(self) -> Sequence[InboundWish]:
        """What recipients want, who wrote to our numbers."""
        return ()


@runtime_checkable
class CallsBack(Protocol):
    """What a provider may implement besides `Provider`, if it calls webhooks of ours."""

    #: The model of its table in notifier.toml: read by whoever checks a signature.
    options_model: ClassVar[type[ProviderOptions]]
    webhooks: ClassVar[Sequence[type[Webhook[Any]]]]

    @property
    def has_webhook(self) -> bool:
        """Whether it was told where, and we can tell that it is it: reports can be waited for."""
        ...
