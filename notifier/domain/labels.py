"""Plain words for statuses, reasons, outcomes and events."""

from __future__ import annotations

from collections.abc import Mapping

from notifier.domain.producers import ProducerProof
from notifier.domain.statuses import Outcome, Reason, Status, SuppressionReason

#: Shown in place of a recipient that retention has removed.
REDACTED = "(redacted)"

STATUSES: Mapping[str, str] = {
    Status.SCHEDULED: "waits for its time",
    Status.QUEUED: "waits for a worker",
    Status.SENDING: "a worker has it in hand",
    Status.RETRYING: "will be tried again",
    Status.UNKNOWN: "nobody can say whether the provider took it",
    Status.SENT: "a provider took it",
    Status.DELIVERED: "it arrived",
    Status.UNDELIVERED: "the provider reports that it did not arrive",
    Status.FAILED: "given up",
    Status.EXPIRED: "it expired before it could be sent",
    Status.CANCELLED: "stopped before it was sent",
    Status.SUPPRESSED: "nothing may be sent to the recipient",
}

#: Status → what happens when its `due_at` has come.
DUE: Mapping[str, str] = {
    Status.SCHEDULED: "it is queued",
    Status.QUEUED: "it is given to the broker again, if no worker has taken it",
    Status.SENDING: "its worker is presumed dead",
    Status.RETRYING: "it is tried again",
    Status.UNKNOWN: "the service looks up whether the provider took it",
    Status.SENT: "the provider is asked whether it arrived; it is not sent again",
}

REASONS: Mapping[str, str] = {
    Reason.INVALID_RECIPIENT: "there is no such mailbox or number",
    Reason.UNREACHABLE_RECIPIENT: "the recipient exists but cannot be reached",
    Reason.OPTED_OUT: "the recipient asked for no more messages",
    Reason.CONTENT_REFUSED: "the content was refused",
    Reason.PROVIDER_REJECTED: "the provider refused it for good",
    Reason.PROVIDER_UNAVAILABLE: "the provider could not be reached, or asked to come back later",
    Reason.PROVIDER_THROTTLED: "too fast for the provider",
    Reason.PROVIDER_ACCOUNT: "our account at the provider is at fault: credentials or credit",
    Reason.SENDER_REFUSED: "our sender identity is refused",
    Reason.DESTINATION_REFUSED: "the provider does not serve this country, prefix or domain",
    Reason.NOT_CONFIGURED: "no provider, sender identity or key is configured for it",
    Reason.OUTCOME_UNKNOWN: "the provider's answer never came",
    Reason.LEASE_EXPIRED: "its worker stopped or stalled before it called a provider",
    Reason.TEMPLATE_ERROR: "the template does not render with this context",
    Reason.TECHNICAL_ERROR: "a fault of notifier's own",
    Reason.EXPIRED: "its expires_at or its deadline has passed",
    Reason.RATE_LIMITED: "it waits for its turn under a rate limit, a cap or a quota",
    Reason.COUNTRY_NOT_ALLOWED: "the country of the number is not on the allow-list",
    Reason.OPERATOR: "an operator decided so",
    Reason.ATTACHMENT_MISSING: "a file that goes with it was deleted before it was sent",
    Reason.HARD_BOUNCE: "a mail server reported that there is no such mailbox",
    Reason.COMPLAINT: "the recipient called an earlier mail spam",
    Reason.UNSUBSCRIBED: "the recipient unsubscribed from this kind of mail",
    Reason.RESTORED: "on its way in the backup that the database was restored from: it may have been sent since",
}

SUPPRESSIONS: Mapping[str, str] = {
    SuppressionReason.HARD_BOUNCE: "a mail server reported that there is no such mailbox",
    SuppressionReason.INVALID_RECIPIENT: "a provider refused it: there is no such mailbox or number",
    SuppressionReason.OPTED_OUT: "they asked for no more messages",
    SuppressionReason.COMPLAINT: "they called a mail spam",
    SuppressionReason.UNSUBSCRIBED: "they unsubscribed from it",
    SuppressionReason.MANUAL: "an operator decided so",
}

OUTCOMES: Mapping[str, str] = {
    Outcome.ACCEPTED: "took it",
    Outcome.REJECTED: "refused it for good",
    Outcome.THROTTLED: "asked to come back later",
    Outcome.UNAVAILABLE: "did not take it",
    Outcome.UNKNOWN: "gave no answer: it may have taken it or not",
}

#: State of a provider → what it means.
PROVIDER_STATES: Mapping[str, str] = {
    "in use": "in use",
    "paused": "paused by an operator",
    "open": "stopped by itself: calls fail",
    "probing": "stopped by itself: trying again",
}

#: Proof → words to follow the name of a producer.
PROOFS: Mapping[str | None, str] = {
    ProducerProof.BROKER_USER: "proven by its broker user",
    ProducerProof.API_KEY: "proven by its API key",
    ProducerProof.SERVICE: "made by the service itself",
    ProducerProof.OPERATOR: "written by an operator",
    ProducerProof.NONE: "not proven",
}

EVENTS: Mapping[str, str] = {
    "accepted": "accepted",
    "duplicate": "duplicate, nothing was sent for it",
    "redispatched": "no worker had taken it: given to the broker again",
    "operator": "an operator stepped in",
    "held": "held until a provider report or an operator decides",
    "quota": "its producer is near its quota",
    "provider": "the provider reports",
    "provider_message": "whose message it is",
    "no_receipt": "no provider report is expected any longer",
    "recipient": "the recipient answers",
    "came_back_unread": "a returned mail could not be read",
    "auto_reply": "an automatic reply: out of office, or a read receipt",
    "suppression_held": "the suppression of its recipient is held back by a mass alarm",
}


def status_in_words(status: str) -> str:
    """`sent: a provider took it`. A status that only a later version knows stays as it is."""
    return f"{status}: {STATUSES[status]}" if status in STATUSES else status


def due_in_words(status: str, moment: str) -> str:
    """`2026-11-22 09:30:00: it is tried again`; "" without a moment."""
    return f"{moment}: {DUE[status]}" if moment and status in DUE else moment


def reason_in_words(reason: str | None) -> str:
    """`there is no such mailbox or number (invalid_recipient)`; "" for None."""
    if reason is None:
        return ""
    return f"{REASONS[reason]} ({reason})" if reason in REASONS else reason


def run_in_words(accepted: int, refused: int) -> str:
    """The outcome for the recipients of a run: `998 accepted, 2 refused`."""
    return f"{accepted} accepted" + (f", {refused} refused" if refused else "")
