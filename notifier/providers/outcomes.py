"""`Verdict`: what a provider's answer means, as a value. It is the right-hand side of every table of codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from notifier.domain.errors import OutcomeUnknown, Rejected, SendError, Throttled, Unavailable
from notifier.domain.statuses import Outcome, Reason, Subject


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of the four ways in which a send fails."""

    outcome: Outcome
    reason: Reason
    subject: Subject = Subject.PROVIDER
    #: With REJECTED: the recipient should not be sent to again.
    suppress: bool = False
    #: With THROTTLED and UNAVAILABLE: how long the answer asks us to wait.
    retry_after_seconds: float | None = None
    #: With UNAVAILABLE: the answer may be about this destination only. See `Unavailable.is_doubtful`.
    is_doubtful: bool = False

    def error(self, detail: str, *, code: str = "", retry_after_seconds: float | None = None) -> SendError:
        """Make the exception to raise. `retry_after_seconds` from the answer takes precedence over the table's.

        Raises:
            ValueError: for ACCEPTED, which is not an error.
        """
        wait = self.retry_after_seconds if retry_after_seconds is None else retry_after_seconds
        match self.outcome:
            case Outcome.REJECTED:
                return Rejected(
                    detail, code=code, reason=self.reason, subject=self.subject, suppress=self.suppress
                )
            case Outcome.THROTTLED:
                return Throttled(
                    detail, code=code, reason=self.reason, subject=self.subject, retry_after_seconds=wait
                )
            case Outcome.UNAVAILABLE:
                return Unavailable(
                    detail,
                    code=code,
                    reason=self.reason,
                    subject=self.subject,
                    retry_after_seconds=wait,
                    is_doubtful=self.is_doubtful,
                )
            case Outcome.UNKNOWN:
                return OutcomeUnknown(detail, code=code, reason=self.reason, subject=self.subject)
            case Outcome.ACCEPTED:
                raise ValueError("an accepted message is a receipt, not an error")
            case _:
                assert_never(self.outcome)


#: Certainly not accepted: no connection, or "try again later".
UNAVAILABLE = Verdict(Outcome.UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE, Subject.PROVIDER)
#: Our account or credentials are wrong. Messages wait until that is fixed; they do not fail.
ACCOUNT = Verdict(Outcome.UNAVAILABLE, Reason.PROVIDER_ACCOUNT, Subject.ACCOUNT)
#: It may have been accepted.
UNKNOWN = Verdict(Outcome.UNKNOWN, Reason.OUTCOME_UNKNOWN, Subject.PROVIDER)
#: We send too fast.
THROTTLED = Verdict(Outcome.THROTTLED, Reason.PROVIDER_THROTTLED, Subject.PROVIDER)
#: Permanently refused: the recipient does not exist.
NO_SUCH_RECIPIENT = Verdict(Outcome.REJECTED, Reason.INVALID_RECIPIENT, Subject.RECIPIENT, suppress=True)
#: Permanently refused because of the recipient, but the answer is too vague to suppress them.
BAD_RECIPIENT = Verdict(Outcome.REJECTED, Reason.INVALID_RECIPIENT, Subject.RECIPIENT)
#: Permanently refused: the recipient exists but cannot be reached.
UNREACHABLE = Verdict(Outcome.REJECTED, Reason.UNREACHABLE_RECIPIENT, Subject.RECIPIENT)
#: Permanently refused: the recipient asked for no more messages.
OPTED_OUT = Verdict(Outcome.REJECTED, Reason.OPTED_OUT, Subject.RECIPIENT, suppress=True)
#: Permanently refused for this recipient only: because of their policy, or because a trial account does not know
#: them.
NOT_FOR_RECIPIENT = Verdict(Outcome.REJECTED, Reason.PROVIDER_REJECTED, Subject.RECIPIENT)
#: Permanently refused because of the content or its size.
CONTENT = Verdict(Outcome.REJECTED, Reason.CONTENT_REFUSED, Subject.CONTENT)
#: Permanently refused for another reason, or none is given.
REFUSED = Verdict(Outcome.REJECTED, Reason.PROVIDER_REJECTED, Subject.CONTENT)
#: Our sender identity is refused. Its messages wait until that is fixed; messages of other senders go on.
SENDER_REFUSED = Verdict(Outcome.UNAVAILABLE, Reason.SENDER_REFUSED, Subject.SENDER)
#: The same, but the answer may also mean that this sender may not send to this destination.
SENDER_REFUSED_HERE = Verdict(Outcome.UNAVAILABLE, Reason.SENDER_REFUSED, Subject.SENDER, is_doubtful=True)
#: The country, prefix or domain is not served. This message fails; others go on.
DESTINATION_REFUSED = Verdict(Outcome.REJECTED, Reason.DESTINATION_REFUSED, Subject.DESTINATION)
#: Our account is refused, but the answer may also mean that it may not send to this destination.
REFUSED_HERE = Verdict(Outcome.UNAVAILABLE, Reason.PROVIDER_ACCOUNT, Subject.DESTINATION, is_doubtful=True)
