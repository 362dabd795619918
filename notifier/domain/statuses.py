"""The record's closed lists: statuses, reasons, outcomes, and which status may follow which.

A status changes only along `TRANSITIONS`. The store puts the table into the `WHERE` of every update, so a late or
repeated event cannot make a change that the table does not allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

#: The provider's name in the record for messages of test keys; no provider may have this name.
SIMULATOR = "simulator"


class Channel(StrEnum):
    """The way in which a notification is sent."""

    EMAIL = "email"  #: one mail to one address
    SMS = "sms"  #: one text message to one number


class Lane(StrEnum):
    """How urgent a message is. Each lane has its own queues, and may have its own workers."""

    URGENT = "urgent"  #: somebody waits for it: one-time codes, password resets
    NORMAL = "normal"  #: transactional: orders, receipts, reminders
    BULK = "bulk"  #: digests and campaigns: everything else may go first


class Status(StrEnum):
    """The status of a notification."""

    SCHEDULED = "scheduled"  #: accepted; waits for its `send_at`
    QUEUED = "queued"  #: due; its task is, or should be, in the broker
    SENDING = "sending"  #: claimed by one worker under a lease
    RETRYING = "retrying"  #: the last attempt certainly failed, or none was made; the next is due at `due_at`
    UNKNOWN = "unknown"  #: it is not known whether the provider accepted it
    SENT = "sent"  #: a provider accepted it
    DELIVERED = "delivered"  #: the provider reported that it arrived
    UNDELIVERED = "undelivered"  #: the provider reported later that it did not arrive
    FAILED = "failed"  #: the service gave up; `reason` says why
    EXPIRED = "expired"  #: `expires_at` passed before it could be sent
    CANCELLED = "cancelled"  #: an operator or the producer stopped it
    SUPPRESSED = "suppressed"  #: nothing may be sent to the recipient


#: Ends that a status in progress may reach through a provider's answer or report, or because time ran out.
_ENDS = frozenset({Status.SENT, Status.DELIVERED, Status.UNDELIVERED, Status.FAILED, Status.EXPIRED})
_STOPS = frozenset({Status.CANCELLED, Status.SUPPRESSED})

#: status → the statuses that may follow it. Nothing goes backwards by itself: `retrying → queued` is the next
#: round of the same delivery. A late acceptance or report may correct `unknown`, `undelivered`, `failed` and
#: `expired`, because the message was in fact sent. `cancelled` and `suppressed` are decisions and stay: if such a
#: notification arrived all the same, only its attempts show it. Only an operator requeues a notification that had
#: ended (`failed`, `expired`, `undelivered`, `suppressed` → `retrying`). An operator or the producer may
#: reschedule a notification that was not tried yet (`queued` → `scheduled`).
#: A notification that a provider accepted (`sent`, `delivered`, `undelivered`) becomes `unknown` again only if the
#: message that a look-up had found for it proves to belong to another attempt (`store.provider_messages`).
#: After the database was restored from a backup, a live notification becomes `unknown`: it may have been sent.
TRANSITIONS: Mapping[Status, frozenset[Status]] = MappingProxyType(
    {
        Status.SCHEDULED: _STOPS | {Status.QUEUED, Status.UNKNOWN, Status.EXPIRED},
        Status.QUEUED: _ENDS | _STOPS | {Status.SENDING, Status.UNKNOWN, Status.SCHEDULED},
        Status.SENDING: _ENDS | {Status.RETRYING, Status.UNKNOWN, Status.SUPPRESSED},
        Status.RETRYING: _ENDS | _STOPS | {Status.QUEUED, Status.UNKNOWN},
        Status.UNKNOWN: _ENDS | {Status.RETRYING, Status.CANCELLED},
        Status.SENT: frozenset({Status.DELIVERED, Status.UNDELIVERED, Status.UNKNOWN}),
        Status.DELIVERED: frozenset({Status.UNKNOWN}),
        Status.UNDELIVERED: frozenset({Status.DELIVERED, Status.RETRYING, Status.UNKNOWN}),
        Status.FAILED: frozenset({Status.SENT, Status.DELIVERED, Status.RETRYING}),
        Status.EXPIRED: frozenset({Status.SENT, Status.DELIVERED, Status.RETRYING}),
        Status.CANCELLED: frozenset(),
        Status.SUPPRESSED: frozenset({Status.RETRYING}),
    }
)

#: Nothing more happens by itself. `sent` is not one of them, because a receipt may still come.
FINAL_STATUSES: frozenset[Status] = _STOPS | _ENDS - {Status.SENT}

#: A producer's wait ends here. `sent` is one of them: usually nothing more is heard of a mail that was accepted.
READY_STATUSES: frozenset[Status] = FINAL_STATUSES | {Status.SENT}
#: Not ended: it waits, a worker has it, or it is not known whether a provider accepted it.
LIVE_STATUSES: tuple[Status, ...] = tuple(status for status in Status if status not in READY_STATUSES)
#: A provider accepted it, and has not reported a failure.
SUCCESSFUL_STATUSES: frozenset[Status] = frozenset({Status.SENT, Status.DELIVERED})


def may_follow(old: Status, new: Status) -> bool:
    return new in TRANSITIONS[old]


def sources_of(new: Status) -> tuple[Status, ...]:
    """The statuses from which `new` may be reached, in the order of `Status`: for `UPDATE … WHERE status IN`."""
    return tuple(old for old in Status if new in TRANSITIONS[old])


class Outcome(StrEnum):
    """The outcome of one attempt, which is one call to one provider."""

    ACCEPTED = "accepted"  #: the provider accepted it and gave a receipt
    REJECTED = "rejected"  #: the provider refused it for good
    THROTTLED = "throttled"  #: certainly not accepted: the provider asked the service to slow down
    UNAVAILABLE = "unavailable"  #: certainly not accepted: no connection, a temporary answer, wrong credentials
    UNKNOWN = "unknown"  #: the call ended without an answer after data may have gone out


class MessageProof(StrEnum):
    """How the service knows that a provider's message belongs to an attempt."""

    ANSWER = "answer"  #: the provider answered the call with the message's id
    REPORT = "report"  #: the provider sent a signed report to the attempt's own address
    LOOK_UP = "look_up"  #: a look-up found it: a guess, which either of the other proofs overrides

    def beats(self, other: MessageProof) -> bool:
        """Whether this proof moves a message from the attempt that it was assigned to by `other`."""
        return other is MessageProof.LOOK_UP and self is not MessageProof.LOOK_UP


class Subject(StrEnum):
    """What a provider's answer is about. Only an answer about the account or the provider affects the provider's
    circuit. Only an answer about the recipient may suppress the recipient."""

    RECIPIENT = "recipient"  #: this one address or number
    DESTINATION = "destination"  #: where the message goes: a country, a prefix, a domain
    CONTENT = "content"  #: what this message says, or how large it is
    SENDER = "sender"  #: the message's sender identity
    ACCOUNT = "account"  #: the service's account at the provider: credentials, credit, registration
    PROVIDER = "provider"  #: the provider as a whole: its servers, its limits, the connection to it


class Reason(StrEnum):
    """Why a notification has its status. A closed list: the provider's own words go into `detail`."""

    INVALID_RECIPIENT = "invalid_recipient"  #: no such mailbox or number
    UNREACHABLE_RECIPIENT = "unreachable_recipient"  #: exists but cannot be reached: landline, full, unroutable
    OPTED_OUT = "opted_out"  #: the recipient opted out (STOP, blocked)
    CONTENT_REFUSED = "content_refused"  #: filtered, spam, not registered, too large
    PROVIDER_REJECTED = "provider_rejected"  #: refused for good, for none of the reasons above
    PROVIDER_UNAVAILABLE = "provider_unavailable"  #: no connection, or a temporary answer
    PROVIDER_THROTTLED = "provider_throttled"  #: too fast for the provider or for the receiving server
    PROVIDER_ACCOUNT = "provider_account"  #: the account or settings are at fault: credentials, credit
    SENDER_REFUSED = "sender_refused"  #: the sender identity is refused; its messages wait, others are sent
    DESTINATION_REFUSED = (
        "destination_refused"  #: the country, prefix or domain is not served; the detail names it
    )
    NOT_CONFIGURED = "not_configured"  #: no provider, sender identity or key for it
    OUTCOME_UNKNOWN = "outcome_unknown"  #: it is not known whether the provider accepted it
    LEASE_EXPIRED = "lease_expired"  #: no provider was called in time: the worker stopped or was delayed
    TEMPLATE_ERROR = "template_error"  #: the template did not render with this context
    TECHNICAL_ERROR = "technical_error"  #: a fault in the service
    EXPIRED = "expired"  #: `expires_at` passed
    RATE_LIMITED = "rate_limited"  #: waits because of a rate limit, a cap or a quota
    COUNTRY_NOT_ALLOWED = "country_not_allowed"  #: the number's country is not on the allow-list
    OPERATOR = "operator"  #: an operator decided so
    ATTACHMENT_MISSING = "attachment_missing"  #: one of its attachments was deleted before it was sent
    HARD_BOUNCE = "hard_bounce"  #: a mail server reported later that there is no such mailbox
    COMPLAINT = "complaint"  #: the recipient marked an earlier mail as spam
    UNSUBSCRIBED = "unsubscribed"  #: the recipient unsubscribed from this kind of mail
    RESTORED = "restored"  #: it had not ended in the backup that the database was restored from


class OnUnknown(StrEnum):
    """A template's policy for attempts whose outcome is unknown."""

    RESEND = "resend"  #: send again, at the risk of a second copy (default for e-mail)
    HOLD = "hold"  #: leave it `unknown` until a report or an operator decides (default for SMS)


class SuppressionReason(StrEnum):
    """Why nothing may be sent to a recipient."""

    HARD_BOUNCE = "hard_bounce"  #: a mail server reported that there is no such mailbox
    INVALID_RECIPIENT = "invalid_recipient"  #: a provider refused it: no such mailbox or number
    OPTED_OUT = "opted_out"  #: they opted out (STOP, blocked)
    COMPLAINT = "complaint"  #: they marked a mail as spam
    UNSUBSCRIBED = "unsubscribed"  #: they unsubscribed from a kind of mail
    MANUAL = "manual"  #: an operator decided so

    @property
    def is_a_wish(self) -> bool:
        """Whether the recipient asked for it. A template that is exempt overrides such a wish, but not a dead
        address or an operator's decision."""
        return self in (SuppressionReason.OPTED_OUT, SuppressionReason.COMPLAINT, SuppressionReason.UNSUBSCRIBED)


class JobState(StrEnum):
    """The state of a job, a long action that workers carry out."""

    WAITING = "waiting"  #: waits for a worker
    RUNNING = "running"  #: a worker works on it
    DONE = "done"
    STOPPED = "stopped"  #: an operator stopped it
    FAILED = "failed"  #: an error ended it


class CallbackState(StrEnum):
    """The state of a status callback."""

    WAITING = "waiting"  #: waits for its next call, at `due_at`
    GIVEN = "given"  #: dispatched: its task is in the broker
    CALLING = "calling"  #: claimed by one worker under a lease
    DELIVERED = "delivered"  #: the endpoint answered 2xx
    PARKED = "parked"  #: given up; `notifier callbacks replay` calls again


class CallbackFailure(StrEnum):
    """Why a call to an endpoint failed, or why a callback was parked without a call."""

    REFUSED = "refused"  #: the answer was not 2xx, 3xx or 410
    REDIRECT = "redirect"  #: the answer was 3xx; redirects are not followed
    GONE = "gone"  #: the answer was 410: the endpoint no longer wants this callback
    TIMEOUT = "timeout"  #: no answer within ten seconds
    CONNECTION = "connection"  #: no connection, or it broke off; no such host
    TLS = "tls"  #: the certificate is not valid
    FORBIDDEN_ADDRESS = "forbidden_address"  #: the host is, or resolves to, an address that must not be called
    LEASE_EXPIRED = "lease_expired"  #: the worker stopped before it recorded the answer
    NOT_CONFIGURED = "not_configured"  #: the producer now has no secret or no address in notifier.toml
    NOT_IN_RECORD = "not_in_record"  #: the notification is no longer in the record
    REDACTED = "redacted"  #: the callback address in the message was redacted
    RESTORED = "restored"  #: it was still to be called in the backup that the database was restored from
    SUSPENDED = "suspended"  #: the endpoint failed for days, and is no longer called
    TECHNICAL_ERROR = "technical_error"  #: a fault in the service


#: Failures that say something about the endpoint itself.
ENDPOINT_FAILURES: frozenset[CallbackFailure] = frozenset(CallbackFailure) - {
    CallbackFailure.LEASE_EXPIRED,
    CallbackFailure.NOT_CONFIGURED,
    CallbackFailure.NOT_IN_RECORD,
    CallbackFailure.REDACTED,
    CallbackFailure.RESTORED,
    CallbackFailure.SUSPENDED,
    CallbackFailure.TECHNICAL_ERROR,
}
