"""Every error that notifier raises on purpose. Each is named by what the caller must do about it.

NotifierError
├── InvalidMessage            fix the message; `faults` lists everything that is wrong with it
├── PublishFailed             the broker did not confirm in time: publish again with the same idempotency key
│   └── PublishRefused        it never will as things are: correct what the text names
├── NotReady                  it has not been sent within that time: wait longer; `status` is where it stood
├── NotificationFailed        it was not sent, or did not arrive; `status` says why
├── ConfigurationError        fix a setting; `setting` names it
│   └── MissingPackage        install the named extra
├── ServiceUnavailable        database or broker cannot be reached: try again later
│   ├── StatementCancelled    the database is there, and ended this statement: ask for less at once
│   ├── RowsHeld              another session held the rows: do each by itself
│   └── DatabaseChanged       the database is not the one it was: an operator decides
├── CannotOpen                give the key that it was sealed under; `key_id` names it
├── NotFound                  no such notification, template or rejected message
├── WrongSelection            select other notifications; nothing was done
├── SignInFailed              sign in again, or do what `fix` says; `reason` is a word for the log
├── TemplateInvalid           fix the template; `problems` lists what is wrong
├── RenderingFailed           the template cannot be rendered with this context: correct one of them
└── SendError                 what a provider raises instead of returning a receipt: exactly one of
    ├── Rejected              permanent: do not send this again
    ├── Throttled             surely not accepted: come back after `retry_after_seconds`
    ├── Unavailable           surely not accepted: try the next provider now, or this one later
    └── OutcomeUnknown        it may have been accepted: do not resend blindly
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from notifier.domain.statuses import Outcome, Reason, Subject

if TYPE_CHECKING:
    from notifier.domain.notification_status import NotificationStatus


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a message.

    `field` is a JSON pointer-like path ("context.order_id", "" for the whole body), `code` a short stable word,
    `problem` says what is wrong and `fix` what to do. None of them repeats the value: it may be personal.
    """

    field: str
    code: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field or 'body'}: {self.problem}. {self.fix}."

    def as_dict(self) -> dict[str, str]:
        return {"field": self.field, "code": self.code, "problem": self.problem, "fix": self.fix}


#: Maximum number of faults of one message, and maximum length of a field's name. A message that is wrong in a
#: million places must not become a record of a gigabyte.
MAX_FAULTS, MAX_FIELD = 20, 200


def few(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The first faults; if there are more, the last one says so. The rest is not even computed."""
    first = [
        fault if len(fault.field) <= MAX_FIELD else replace(fault, field=fault.field[:MAX_FIELD])
        for fault in islice(faults, MAX_FAULTS + 1)
    ]
    if len(first) > MAX_FAULTS:
        first[-1] = Fault("", "more_faults", "there are more faults than these", "Correct these, then try again")
    return tuple(first)


class NotifierError(Exception):
    """Base of all errors of notifier."""


class InvalidMessage(NotifierError, ValueError):
    """The message breaks the contract; `faults` holds every reason."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        super().__init__("invalid message: " + " ".join(str(fault) for fault in self.faults))


class PublishFailed(NotifierError):
    """The broker did not confirm the message before the deadline.

    It may or may not have arrived. Publish it again with the same `idempotency_key` (or id): the service accepts
    it once.
    """


class PublishRefused(PublishFailed):
    """The broker refuses this user, this virtual host or database, writing there, or a message of this size; or
    the server is not a broker of that kind. Nothing was published. Publishing again does not help before somebody
    corrects what the text names."""


class NotReady(NotifierError, TimeoutError):
    """The notification has neither been sent nor ended within the time."""

    def __init__(self, message: str, *, status: NotificationStatus | None) -> None:
        #: Its status at the end; None: it was not in the record.
        self.status = status
        super().__init__(message)


class NotificationFailed(NotifierError):
    """The notification failed, expired, was cancelled or suppressed, or was reported as undelivered."""

    def __init__(self, status: NotificationStatus) -> None:
        self.status = status
        because = f" ({status.reason})" if status.reason else ""
        super().__init__(f"the notification {status.id} ended as {status.status}{because}")


class ConfigurationError(NotifierError):
    """A setting is missing or wrong. The text names the setting and what to put there."""

    def __init__(self, message: str, *, setting: str = "") -> None:
        self.setting = setting
        super().__init__(message)


class MissingPackage(ConfigurationError, ImportError):
    """A package of an extra is not installed; the text says which extra adds it."""


def add_extra(extra: str) -> str:
    """The end of an error text: how to install the package of a missing extra.

    It names no command, because the right one depends on where notifier came from. On PyPI, `notifier` is somebody
    else's package.
    """
    return f"install notifier[{extra}] from where you installed notifier (docs/how-to/install.md), not from PyPI"


class ServiceUnavailable(NotifierError):
    """The database or the broker cannot be reached now. Nothing was lost; try again later."""


class StatementCancelled(ServiceUnavailable):
    """The database ended the statement, usually because it took too long. The same statement may take as long
    again: do less at once."""


class RowsHeld(ServiceUnavailable):
    """Another session held rows that the statement needs for longer than it waits, or the two sessions waited for
    each other. Nothing was done. Statements that need other rows succeed."""


class DatabaseChanged(ServiceUnavailable):
    """The database was replaced: a backup was restored, or a standby took over. Nothing is done until an operator
    decides (`notifier db after-restore`)."""


class CannotOpen(NotifierError):
    """A stored value is sealed under a key that is missing here, or it was damaged. With the key it opens."""

    def __init__(self, message: str, *, key_id: str) -> None:
        self.key_id = key_id
        super().__init__(message)


class NotFound(NotifierError, LookupError):
    """There is no such thing; the text says what was looked for."""


class WrongSelection(NotifierError, ValueError):
    """An operator selected nothing, everything, or something that may not be changed. Nothing was done."""


class QuotaExceeded(NotifierError):
    """A producer's files would exceed its quota. Bytes."""

    def __init__(self, used: int, quota: int) -> None:
        self.used = used
        self.quota = quota
        super().__init__(f"the files of this producer take up {used} of {quota} bytes")


class SignInFailed(NotifierError):
    """Somebody could not sign in through the identity provider. `problem` and `fix` are whole sentences for that
    person, and hold no token, code or claim."""

    def __init__(self, reason: str, problem: str, fix: str, *, is_away: bool = False) -> None:
        self.reason = reason
        self.problem = problem
        self.fix = fix
        #: The identity provider could not be asked; it may answer later.
        self.is_away = is_away
        super().__init__(f"{problem} {fix}")


class TemplateInvalid(NotifierError):
    """A template on disk is broken; `problems` says where and why."""

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        self.name = name
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__(f"template {name} is not usable: " + "; ".join(self.problems))


class RenderingFailed(NotifierError):
    """This template cannot be rendered with this context."""


#: Reason → subject of an answer whose provider says no more. A reason without a row is about the provider; if the
#: message was refused for good, about the content.
SUBJECTS: Mapping[Reason, Subject] = MappingProxyType(
    {
        Reason.INVALID_RECIPIENT: Subject.RECIPIENT,
        Reason.UNREACHABLE_RECIPIENT: Subject.RECIPIENT,
        Reason.OPTED_OUT: Subject.RECIPIENT,
        Reason.DESTINATION_REFUSED: Subject.DESTINATION,
        Reason.CONTENT_REFUSED: Subject.CONTENT,
        Reason.SENDER_REFUSED: Subject.SENDER,
        Reason.PROVIDER_ACCOUNT: Subject.ACCOUNT,
    }
)


class SendError(NotifierError):
    """A provider did not return a receipt.

    `reason` is ours, `code` the provider's own ("21211", "550 5.1.1"), `detail` the provider's words without
    personal data, and `subject` what the answer is about; the default comes from `SUBJECTS`.
    """

    outcome: Outcome

    def __init__(self, detail: str, *, reason: Reason, code: str = "", subject: Subject | None = None) -> None:
        self.detail = detail
        self.reason = reason
        self.code = code
        self.subject = subject or SUBJECTS.get(reason, Subject.PROVIDER)
        super().__init__(f"{code} {detail}".strip())


class Rejected(SendError):
    """Refused for good. `suppress`: the recipient should not be sent to again."""

    outcome = Outcome.REJECTED

    def __init__(
        self,
        detail: str,
        *,
        reason: Reason,
        code: str = "",
        suppress: bool = False,
        subject: Subject | None = None,
    ) -> None:
        super().__init__(
            detail, reason=reason, code=code, subject=subject or SUBJECTS.get(reason, Subject.CONTENT)
        )
        self.suppress = suppress


class Throttled(SendError):
    """Surely not accepted; the provider asks us to wait `retry_after_seconds` (None: it did not say)."""

    outcome = Outcome.THROTTLED

    def __init__(
        self,
        detail: str,
        *,
        code: str = "",
        retry_after_seconds: float | None = None,
        reason: Reason = Reason.PROVIDER_THROTTLED,
        subject: Subject | None = None,
    ) -> None:
        super().__init__(detail, reason=reason, code=code, subject=subject)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(SendError):
    """Surely not accepted. `retry_after_seconds` is set if the code itself asks for a wait (greylisting).

    `is_doubtful`: the answer may be about us, or about this destination alone. If the provider accepts other
    messages of the same sender meanwhile, it was about the destination.
    """

    outcome = Outcome.UNAVAILABLE

    def __init__(
        self,
        detail: str,
        *,
        code: str = "",
        reason: Reason = Reason.PROVIDER_UNAVAILABLE,
        retry_after_seconds: float | None = None,
        subject: Subject | None = None,
        is_doubtful: bool = False,
    ) -> None:
        super().__init__(detail, reason=reason, code=code, subject=subject)
        self.retry_after_seconds = retry_after_seconds
        self.is_doubtful = is_doubtful


class OutcomeUnknown(SendError):
    """The connection ended, or the time ran out, after the message may have been taken."""

    outcome = Outcome.UNKNOWN

    def __init__(
        self,
        detail: str,
        *,
        code: str = "",
        reason: Reason = Reason.OUTCOME_UNKNOWN,
        subject: Subject | None = None,
    ) -> None:
        super().__init__(detail, reason=reason, code=code, subject=subject)
