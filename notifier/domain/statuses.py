"""The closed lists of the record: statuses, reasons, outcomes, and which status may follow which.

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
    """How a notification travels."""

    EMAIL = "email"  #: one mail to one address
    SMS = "sms"  #: one text message to one number


class Lane(StrEnum):
    """How urgent it is. Each lane has queues and may have worker processes of its own."""

    URGENT = "urgent"  #: someone waits for it: one-time codes, password resets
    NORMAL = "normal"  #: transactional: orders, receipts, reminders
    BULK = "bulk"  #: digests and campaigns; may wait for everything else


class Status(StrEnum):
    """Where a notification stands."""

    SCHEDULED = "scheduled"  #: accepted, waits for its `send_at`
    QUEUED = "queued"  #: due; a deliver task for it is (or should be) in the broker
    SENDING = "sending"  #: claimed by one worker under a lease
    RETRYING = "retrying"  #: the last attempt surely failed; the next one is due at `due_at`
    UNKNOWN = "unknown"  #: we cannot know whether the provider took it
    SENT = "sent"  #: a provider accepted it
    DELIVERED = "delivered"  #: the provider reported that it arrived
    UNDELIVERED = "undelivered"  #: the provider reported later that it did not arrive
    FAILED = "failed"  #: we gave up; `reason` says why
    EXPIRED = "expired"  #: `expires_at` passed before it could be sent
    CANCELLED = "cancelled"  #: an operator or the producer stopped it
    SUPPRESSED = "suppressed"  #: the recipient must not be sent to


#: Ends that any status on the way may reach by a provider's answer, by a report, or because its time is over.
_ENDS = frozenset({Status.SENT, Status.DELIVERED, Status.UNDELIVERED, Status.FAILED, Status.EXPIRED})
_STOPS = frozenset({Status.CANCELLED, Status.SUPPRESSED})

#: status → the statuses that may follow it. Nothing goes backwards by itself: `retrying → queued` is the next
#: round of the same delivery. A late acceptance or receipt may correct `unknown`, `undelivered`, `failed` and
#: `expired`, because a sent message was sent, whatever we had come to believe. `cancelled` and `suppressed` are
#: decisions and stay; the attempts beside them show what arrived all the same. Only an operator requeues a
#: notification that had ended (`failed`, `expired`, `undelivered`, `suppressed` → `retrying`). An operator or the
#: producer may give a notification that was not tried yet another time (`queued` → `scheduled`).
#: A notification that a provider took (`sent`, `delivered`, `undelivered`) becomes `unknown` again for one cause
#: only: the message that a look-up had found for it proves to be another attempt's (`store.provider_messages`).
#: After its database was restored from a backup, a live one becomes `unknown`: it may have been sent since.
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

#: A producer's wait ends here. `sent` is one of them: nothing more is usually heard of a mail that was taken.
READY_STATUSES: frozenset[Status] = FINAL_STATUSES | {Status.SENT}
#: It has not ended: it waits, a worker has it, or nobody knows whether a provider took it.
LIVE_STATUSES: tuple[Status, ...] = tuple(status for status in Status if status not in READY_STATUSES)
#: A provider took it, and has not reported a failure.
SUCCESSFUL_STATUSES: frozenset[Status] = frozenset({Status.SENT, Status.DELIVERED})


def may_follow(old: Status, new: Status) -> bool:
    return new in TRANSITIONS[old]


def sources_of(new: Status) -> tuple[Status, ...]:
    """The statuses from which `new` may be reached, in the order of `Status`: for `UPDATE … WHERE status IN`."""
    return tuple(old for old in Status if new in TRANSITIONS[old])


class Outcome(StrEnum):
    """The outcome of one attempt (one call to one provider)."""

    ACCEPTED = "accepted"  #: the provider took it, with a receipt
    REJECTED = "rejected"  #: the provider refused it for good
    THROTTLED = "throttled"  #: the provider asks us to come back later; surely not accepted
    UNAVAILABLE = "unavailable"  #: surely not accepted: no connection, a temporary answer, wrong credentials
    UNKNOWN = "unknown"  #: the call ended without an answer after the data may have gone out


class MessageProof(StrEnum):
    """How we know that a provider's message belongs to an attempt."""

    ANSWER = "answer"  #: the provider answered our call with its id
    REPORT = "report"  #: the provider reported about it under the attempt's own address, and signed that
    LOOK_UP = "look_up"  #: a look-up found it: a guess, which gives way to either of the others

    def beats(self, other: MessageProof) -> bool:
        """Whether this proof moves a message from the attempt that it was assigned to by `other`."""
        return other is MessageProof.LOOK_UP and self is not MessageProof.LOOK_UP


class Subject(StrEnum):
    """What a provider's answer is about. Only an answer about the account or the provider says something about the
    provider itself and touches its circuit. Only an answer about the recipient may suppress the recipient."""

    RECIPIENT = "recipient"  #: this one address or number
    DESTINATION = "destination"  #: where it leads: a country, a prefix, a domain
    CONTENT = "content"  #: what this message says, or how large it is
    SENDER = "sender"  #: the sender identity that it came from
    ACCOUNT = "account"  #: our account: credentials, credit, registration
    PROVIDER = "provider"  #: the provider as a whole: its servers, its limits, the connection to it


class Reason(StrEnum):
    """Why a notification is where it is. A closed list: the provider's own words go into `detail`."""

    INVALID_RECIPIENT = "invalid_recipient"  #: no such mailbox or number
    UNREACHABLE_RECIPIENT = "unreachable_recipient"  #: exists but cannot be reached: landline, full, unroutable
    OPTED_OUT = "opted_out"  #: the recipient asked for no more (STOP, blocked)
    CONTENT_REFUSED = "content_refused"  #: filtered, spam, not registered, too large
    PROVIDER_REJECTED = "provider_rejected"  #: refused for good, for none of the reasons above
    PROVIDER_UNAVAILABLE = "provider_unavailable"  #: no connection, or a temporary answer
    PROVIDER_THROTTLED = "provider_throttled"  #: too fast for the provider or for the receiving server
    PROVIDER_ACCOUNT = "provider_account"  #: our account or settings are at fault: credentials, credit
    SENDER_REFUSED = "sender_refused"  #: our sender identity is refused; its messages wait, others go on
    DESTINATION_REFUSED = (
        "destination_refused"  #: the country, prefix or domain is not served; the detail names it
    )
    NOT_CONFIGURED = "not_configured"  #: no provider, sender identity or key for it
    OUTCOME_UNKNOWN = "outcome_unknown"  #: nobody can say whether the provider took it
    LEASE_EXPIRED = "lease_expired"  #: no provider was called in time: the worker went away or was held up
    TEMPLATE_ERROR = "template_error"  #: the template did not render with this context
    TECHNICAL_ERROR = "technical_error"  #: a fault of ours
    EXPIRED = "expired"  #: `expires_at` passed
    RATE_LIMITED = "rate_limited"  #: waits for its turn under a rate limit, a cap or a quota
    COUNTRY_NOT_ALLOWED = "country_not_allowed"  #: the number's country is not on the allow-list
    OPERATOR = "operator"  #: an operator decided so
    ATTACHMENT_MISSING = "attachment_missing"  #: a file that goes with it was deleted before it was sent
    HARD_BOUNCE = "hard_bounce"  #: a mail server reported later that there is no such mailbox
    COMPLAINT = "complaint"  #: the recipient called an earlier mail spam
    UNSUBSCRIBED = "unsubscribed"  #: the recipient unsubscribed from this kind of mail
    RESTORED = "restored"  #: it was on its way in the backup that the database was restored from


class OnUnknown(StrEnum):
    """What to do when the outcome of an attempt is unknown: a template's policy."""

    RESEND = "resend"  #: send again, at the risk of a second copy (default for e-mail)
    HOLD = "hold"  #: leave it `unknown` until a receipt or an operator decides (default for SMS)


class SuppressionReason(StrEnum):
    """Why nothing may be sent to a recipient."""

    HARD_BOUNCE = "hard_bounce"  #: a mail server reported that there is no such mailbox
    INVALID_RECIPIENT = "invalid_recipient"  #: a provider refused it: no such mailbox or number
    OPTED_OUT = "opted_out"  #: they asked for no more (STOP, blocked)
    COMPLAINT = "complaint"  #: they called a mail spam
    UNSUBSCRIBED = "unsubscribed"  #: they unsubscribed from a kind of mail
    MANUAL = "manual"  #: an operator decided so

    @property
    def is_a_wish(self) -> bool:
        """Whether the recipient asked for it. A message that the law requires is sent against such a wish, but not
        to a dead address, and not against an operator who forbade it."""
        return self in (SuppressionReason.OPTED_OUT, SuppressionReason.COMPLAINT, SuppressionReason.UNSUBSCRIBED)


class JobState(StrEnum):
    """Where an operator's long action stands, which workers carry out."""

    WAITING = "waiting"  #: for a worker
    RUNNING = "running"  #: a worker has it in hand
    DONE = "done"
    STOPPED = "stopped"  #: an operator ended it
    FAILED = "failed"  #: an error ended it


class CallbackState(StrEnum):
    """Where a status callback stands."""

    WAITING = "waiting"  #: for its next call, at `due_at`
    GIVEN = "given"  #: to the broker, for a worker
    CALLING = "calling"  #: claimed by one worker under a lease
    DELIVERED = "delivered"  #: the endpoint answered 2xx
    PARKED = "parked"  #: given up; `notifier callbacks replay` makes it again


class CallbackFailure(StrEnum):
    """Why a call of an endpoint failed, or why a callback is parked without one."""

    REFUSED = "refused"  #: an answer other than 2xx, 3xx and 410
    REDIRECT = "redirect"  #: an answer of 3xx, which is not followed
    GONE = "gone"  #: 410: the endpoint wants no more of it
    TIMEOUT = "timeout"  #: no answer within ten seconds
    CONNECTION = "connection"  #: no connection, or it broke off; no such host
    TLS = "tls"  #: the certificate is not right
    FORBIDDEN_ADDRESS = "forbidden_address"  #: its host is, or resolves to, an address that is not called
    LEASE_EXPIRED = "lease_expired"  #: the worker went away before it recorded the answer
    NOT_CONFIGURED = "not_configured"  #: its producer has no secret, or no address, in notifier.toml now
    NOT_IN_RECORD = "not_in_record"  #: its notification is in the record no more
    REDACTED = "redacted"  #: the address that its message named was redacted
    RESTORED = "restored"  #: it was to be called in the backup that the database was restored from
    SUSPENDED = "suspended"  #: its endpoint failed for days, and is not called
    TECHNICAL_ERROR = "technical_error"  #: a fault of ours


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
