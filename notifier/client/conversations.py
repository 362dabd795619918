"""The client's side of the HTTP API, without a network: generators that yield an `ApiRequest` or a `Pause` and
receive an `ApiReply`. The client that blocks a thread and the one that awaits share these rules
(`notifier.client.service_api` carries the requests)."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Self, TypeVar
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from notifier.client.replies import AcceptedReply, BatchReply, ReplyProblem, faults_of, read
from notifier.domain.errors import (
    ConfigurationError,
    Fault,
    InvalidMessage,
    NotReady,
    PublishFailed,
    PublishRefused,
    ServiceUnavailable,
)
from notifier.domain.notification_status import CONTENT_HEADER, NotificationStatus

#: How long the service holds one request that waits; below the limits of common proxies. Seconds.
HOLD_SECONDS = 20.0
#: Longest time to wait for a notification: a year.
MAX_TIMEOUT_SECONDS = 366 * 24 * 60 * 60
#: Shortest and longest pause after an answer that says nothing about the notification. Seconds.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0
#: Shortest and longest pause when the service does not hold the request because too many wait. Seconds.
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 1.0, 4.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ApiRequest:
    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    #: How long the service may hold the request, in addition to the client's own limit.
    held_seconds: float = 0.0
    #: A caller waits for the notification. Such a request takes no connection that other requests need.
    is_wait: bool = False
    #: How long a request that waits may itself wait for a free connection.
    patience_seconds: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()

    def unheld(self) -> Self:
        """The same request, to be answered at once."""
        query = tuple(pair for pair in self.query if pair[0] != "wait")
        return replace(self, query=query, held_seconds=0.0)


@dataclass(frozen=True, slots=True)
class ApiReply:
    #: HTTP status. 0: there was no answer.
    status: int = 0
    body: bytes = b""
    retry_after_seconds: float = 0.0
    #: Why there was no answer.
    problem: str = ""
    #: There was no answer because the time was over.
    is_late: bool = False
    #: The request was never sent: too many others waited with this client, and it got no turn in time.
    is_crowded: bool = False
    #: There will be no answer until somebody corrects what `problem` names.
    is_lasting: bool = False
    #: The client was closed while the request waited.
    is_closed: bool = False
    media_type: str = ""

    @property
    def is_temporary(self) -> bool:
        return not self.is_lasting and (self.status in (0, 408, 429) or self.status >= 500)

    @property
    def detail(self) -> str:
        """What the reply says, for people."""
        said = self.refusal
        return self.problem or (said.detail if said else "") or f"HTTP {self.status}"

    @property
    def refusal(self) -> ReplyProblem | None:
        """The problem document of a notifier; None: the request was not refused, or another server answered."""
        return read(ReplyProblem, self.body) if self.media_type == "application/problem+json" else None

    @property
    def is_not_in_record(self) -> bool:
        """Whether a notifier says that there is no such notification. For a path that does not exist, a notifier
        says only "Not Found"."""
        return self.status == 404 and self.refusal is not None and self.refusal.detail != "Not Found"


@dataclass(frozen=True, slots=True)
class Pause:
    """Ask again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Asked:
    """The notification that the service is asked about."""

    id: UUID
    #: None: the id is also the key.
    idempotency_key: str | None = None
    #: Hex digest of the content. None: accept whatever content has this key.
    content: str | None = field(default=None, repr=False)

    @classmethod
    def by(
        cls, notification_id: UUID | str, idempotency_key: str | None = None, content: str | None = None
    ) -> Asked:
        """Make one from an id that people give. The id is checked, because it becomes part of a URL.

        Raises:
            ValueError: it is not a UUID.
        """
        try:
            return cls(UUID(str(notification_id)), idempotency_key, content)
        except (ValueError, RecursionError):
            raise ValueError(
                "notification_id is not a UUID: give the id of the handle that send() returned"
            ) from None

    def request(self, hold_seconds: float | None = None) -> ApiRequest:
        """Make the request. With `hold_seconds` the service holds it until the notification is ready or the time
        is over."""
        is_wait, hold_seconds = hold_seconds is not None, hold_seconds or 0.0
        query = [("wait", f"{hold_seconds:.3f}")] if hold_seconds else []
        if self.idempotency_key is not None:
            query.append(("idempotency_key", self.idempotency_key))
        path = f"/v1/notifications/{self.id}/status"
        # The hash is not in the query: URLs end up in logs, and a short code can be guessed from its hash.
        headers = () if self.content is None else ((CONTENT_HEADER, self.content),)
        return ApiRequest(
            "GET",
            path,
            tuple(query),
            held_seconds=hold_seconds,
            is_wait=is_wait,
            patience_seconds=hold_seconds,
            headers=headers,
        )


Conversation = Generator[ApiRequest | Pause, ApiReply, _T]


def ask_status(asked: Asked) -> Conversation[NotificationStatus | None]:
    """Return the notification's status; None: it is not in the record.

    Raises:
        InvalidMessage: its key was accepted before with other content.
        ServiceUnavailable: the service does not answer now.
        ConfigurationError: the service refuses the key, or the address is not a notifier's.
    """
    reply = yield asked.request()
    return _status_of(reply)


def wait_for(asked: Asked, timeout: float | None) -> Conversation[NotificationStatus]:
    """Return the notification's status when it is ready. `timeout` is in seconds; None: wait for ever.

    Raises:
        NotReady: not ready within `timeout`; also if too many others waited with the client for it to ask.
        InvalidMessage: as for `ask_status`.
        ServiceUnavailable: the service did not answer when the time was over; or, at once, the client was closed.
        ConfigurationError: the service refuses the key.
        TypeError, ValueError: `timeout` is not a number of seconds, or more than a year.
    """
    ends_at = None if timeout is None else time.monotonic() + _seconds(timeout)
    pause, poll = FIRST_PAUSE_SECONDS, FIRST_POLL_SECONDS
    #: The last reply that was not "too many wait with this client". None: there was none.
    heard: ApiReply | None = None
    while True:
        began_at = time.monotonic()
        hold = HOLD_SECONDS if ends_at is None else min(max(0.0, ends_at - began_at), HOLD_SECONDS)
        reply = yield asked.request(hold)
        is_last = reply.is_closed or (ends_at is not None and time.monotonic() >= ends_at)
        heard = heard if reply.is_crowded else reply
        if is_last and heard is None:
            raise NotReady(f"not known after {timeout:g} s: {asked.id}; {reply.detail}", status=None)
        reply = heard if is_last and heard is not None else reply
        if reply.is_temporary and not is_last:
            yield Pause(_within(max(pause, reply.retry_after_seconds), ends_at))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            continue
        status = _status_of(reply)
        if status is not None and status.is_ready:
            return status
        if is_last:
            raise NotReady(_not_ready(asked, status, timeout), status=status)
        pause = FIRST_PAUSE_SECONDS
        yield Pause(_within(began_at + poll - time.monotonic(), ends_at))
        # The service answered at once, so too many wait there: poll more slowly.
        poll = min(poll * 2, LONGEST_POLL_SECONDS)


def publish(body: bytes) -> Conversation[UUID]:
    """Send one message. Returns the id of its notification.

    Raises:
        InvalidMessage: the service refuses the message; `faults` says why.
        PublishFailed: the service does not answer now.
        PublishRefused: the service refuses the key, or the address is not a notifier's.
    """
    reply = yield from post("/v1/notifications", body)
    accepted = read(AcceptedReply, reply.body) if reply.status == 202 else None
    if accepted is None:
        raise _refused(reply)
    return accepted.id


def publish_batch(bodies: Sequence[bytes], first: int) -> Conversation[list[UUID | list[Fault]]]:
    """Send several messages. Returns, for each, the id of its notification or the faults for which it is refused.
    `first` is the position of the first body among all messages of the caller.

    Raises:
        InvalidMessage, PublishFailed, PublishRefused: as for `publish`, if no message was accepted.
    """
    reply = yield from post("/v1/notifications/batch", b'{"batch":[' + b",".join(bodies) + b"]}")
    accepted = read(BatchReply, reply.body) if reply.status == 202 else None
    if accepted is None or len(accepted.entries) != len(bodies):
        raise _refused(reply, first)
    return [entry.outcome(first + position) for position, entry in enumerate(accepted.entries)]


def list_templates() -> Conversation[ApiReply]:
    """Ask for the service's templates, as JSON."""
    return (yield ApiRequest("GET", "/v1/templates"))


def post(path: str, body: bytes) -> Conversation[ApiReply]:
    """Post a body, at most twice, because an idle connection may have died. The second try is safe: the key makes
    it the same notification. After a timeout there is no second try; the caller decides about that."""
    request = ApiRequest("POST", path, body=body, headers=(("content-type", "application/json"),))
    reply = yield request
    if reply.status == 0 and not (reply.is_late or reply.is_lasting or reply.is_closed):
        reply = yield request
    return reply


def _status_of(reply: ApiReply) -> NotificationStatus | None:
    if reply.is_not_in_record:
        return None
    if reply.is_temporary:
        raise ServiceUnavailable(f"the service did not give its status: {reply.detail}; ask again later")
    if reply.status == 409 and reply.refusal is not None and reply.refusal.errors:
        raise InvalidMessage(faults_of(reply.refusal.errors, ""))
    if reply.status != 200:
        raise refused_key(reply)
    try:
        return _status_reader().validate_json(reply.body)
    except ValidationError:
        raise no_api() from None


@cache
def _status_reader() -> TypeAdapter[NotificationStatus]:
    # Made when it is first needed, so that producers that only publish start faster.
    return TypeAdapter(NotificationStatus)


def refused_key(reply: ApiReply, scope: str = "read") -> ConfigurationError:
    """The error for a reply that will not change: the key or the address is wrong. The call needs a key with this
    `scope`."""
    if reply.is_lasting:
        return ConfigurationError(reply.problem, setting="NOTIFIER_API_URL")
    if reply.status not in (401, 403):
        return no_api()
    problem = f"the service refuses the key: {_with_scope(reply, scope)}"
    return ConfigurationError(problem, setting="NOTIFIER_API_KEY")


def _with_scope(reply: ApiReply, scope: str) -> str:
    """What the service says against the key, and how to get a better key."""
    fix = f"give one with the scope {scope} (`notifier keys create`)"
    if reply.refusal is None:
        fix += ", or ask who runs the proxy in front of the service, as these are not the service's words"
    return f"{reply.detail}; {fix}"


def no_api() -> ConfigurationError:
    return ConfigurationError(
        "what answers there is not the API of a notifier of this version: correct its address, or bring service "
        "and package to one version",
        setting="NOTIFIER_API_URL",
    )


def _refused(reply: ApiReply, first: int | None = None) -> InvalidMessage | PublishFailed:
    if reply.is_temporary:
        return PublishFailed(
            f"the service did not accept the message: {reply.detail}; publish again with the same idempotency key"
        )
    if 200 <= reply.status < 300:
        return PublishFailed(
            f"whether the message was accepted is not known: {no_api()}; then publish again with the same "
            "idempotency key"
        )
    if reply.refusal is not None and reply.refusal.errors:
        return InvalidMessage(faults_of(reply.refusal.errors, "" if first is None else None, first or 0))
    if reply.is_lasting:
        problem = reply.problem
    elif reply.status in (401, 403):
        problem = f"the service refuses the key: {_with_scope(reply, 'send')}"
    elif reply.status == 413:
        problem = (
            f"it is too large for a server in front of the service ({reply.detail}): send less at once, or have "
            "that server accept larger bodies"
        )
    else:
        problem = f"the service refused the message: {reply.detail}; correct the address of its API"
    return PublishRefused(f"{problem}; until then publishing again does not help")


def _not_ready(asked: Asked, status: NotificationStatus | None, timeout: float | None) -> str:
    if status is not None:
        return f"{status.status} after {timeout:g} s: {status.id}"
    return (
        f"not in the record after {timeout:g} s: {asked.id}; no intake runs, or it rejected the message "
        "(`notifier rejected list`)"
    )


def _seconds(timeout: object) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout is a number of seconds, not {type(timeout).__name__}")
    # Also catches NaN, for which every comparison is false.
    if not timeout <= MAX_TIMEOUT_SECONDS:
        raise ValueError(f"timeout is a number of seconds, at most {MAX_TIMEOUT_SECONDS} (a year)")
    return float(max(0, timeout))


def _within(seconds: float, ends_at: float | None) -> float:
    return max(0.0, seconds if ends_at is None else min(seconds, ends_at - time.monotonic()))
