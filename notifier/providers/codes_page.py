"""Writes docs/reference/provider-codes.md from the tables of codes: `python -m notifier.providers.codes_page >
…`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from notifier.domain.statuses import Outcome, Reason, Subject
from notifier.providers.mail import code_table
from notifier.providers.outcomes import Verdict
from notifier.providers.twilio import codes as twilio_codes
from notifier.providers.twilio import webhooks as twilio_reports
from notifier.providers.vonage import codes as vonage_codes
from notifier.providers.vonage import webhooks as vonage_reports

_INTRODUCTION = """\
# Provider codes

This page says what a provider's answer means, and what follows from it. It is generated from the tables in
`notifier/providers/` (`mail/code_table.py`, `twilio/codes.py`, `vonage/codes.py`):
`python -m notifier.providers.codes_page > docs/reference/provider-codes.md`.

Each row has a reason. Unless the row says otherwise, the reason implies the outcome and the subject of the answer:

| reason | outcome | about |
|---|---|---|
"""

_CONSEQUENCES = """\

For what follows from an outcome, see [statuses](statuses.md#outcome-how-one-attempt-ended). *After*: it is not
tried again before this pause is over. *Suppress*: nothing is sent to the recipient again.

| about | what delivery does in addition |
|---|---|
| `recipient`, `content` | nothing |
| `destination` | tries the next provider. If none serves it, it fails; the detail names the country or domain |
| `sender` | tries the next provider; three refusals (doubtful ones count once a destination) hold the sender |
| `account`, `provider` | opens the [circuit](../explanation/architecture.md#providers-and-failover) |

*Doubtful*: either our side is at fault, or this one destination is not served. The message waits for
[evidence](../explanation/decisions.md#evidence-says-what-an-answer-is-about-where-words-do-not).

† is based on experience, not on the provider's page.
"""

_SMTP = """\
## E-mail (SMTP)

The first matching row decides: some rows go by the server's words, then come enhanced codes (RFC 3463), then basic
codes. `*` stands for any digit or number. The word after a code is the command that it answers; without one, any
command. *By words*: the text must also match. The patterns, and the source of each row, are in
[the table](../../notifier/providers/mail/code_table.py).

- If no row matches, 2xx, 3xx and answers that are not SMTP mean `unavailable` before the end of the mail was sent.
  After the end they mean `unknown`, as does an answer that never comes.
- If the text quotes another server ("host … said: 550 …"), that server's code counts. The answer is then about the
  `destination`, never about our account.
- If the text contains an address of ours, a refusal is about the `sender`, in doubt. A recipient is suppressed
  only if the text names the recipient or no address.
- At `rcpt`, an answer about our account is doubtful, because relays refuse a single domain in the same words.
- Bounces are read like answers to `rcpt`. Only reason and *suppress* count. If a server gave up trying,
  `provider_unavailable` becomes `unreachable_recipient`.

| answer | means | reason |
|---|---|---|
"""

_TWILIO = """\
## SMS (Twilio)

These codes come in answers to a send and as the ErrorCode of status callbacks. For status callbacks only reason
and *suppress* count. Each code links to Twilio's page.

| answer without a row | means |
|---|---|
| HTTP 5xx, whatever its code; no answer, or an unreadable one | `unknown` |
| 401, 403, 404, 405, 407, 3xx without a Twilio code | our account or address is at fault |
| 408, 429 without a code | `unavailable`, `throttled` |
| any other 4xx | `rejected`, `provider_rejected` |

| code | means | reason |
|---|---|---|
"""

_VONAGE = """\
## SMS (Vonage)

Vonage answers HTTP 200 with a status for each part of the text. Source: [Vonage's page]({url}),
or the page that a status links to.

| answer | means |
|---|---|
| all parts `0` | a receipt |
| all parts refused | the most serious of their outcomes: `unknown`, then `rejected`, `unavailable`, `throttled` |
| some accepted, some refused; no answer, or an unreadable one | `unknown`: sending it again could send it twice |
| a status without a row | `rejected`, `provider_rejected` |
| HTTP other than 2xx | as for Twilio without a code |

The first matching row decides; some rows go by the words of the answer.

| status | means | reason |
|---|---|---|
"""


_VONAGE_RECEIPTS = """\
### Delivery receipts of Vonage

The `err-code` of a [receipt]({url}) says why a message did not arrive. Any other code is `provider_rejected`.

| err-code | means | reason |
|---|---|---|
"""

#: What providers report later, and what each report does to a notification.
_REPORTS = """\
## What is reported later

Any other word changes no status; it is recorded in the timeline.

| status | Twilio | Vonage |
|---|---|---|
"""

#: Facts that the page does not repeat in each row.
_IMPLIED = {
    Reason.INVALID_RECIPIENT: (Outcome.REJECTED, Subject.RECIPIENT),
    Reason.UNREACHABLE_RECIPIENT: (Outcome.REJECTED, Subject.RECIPIENT),
    Reason.OPTED_OUT: (Outcome.REJECTED, Subject.RECIPIENT),
    Reason.PROVIDER_REJECTED: (Outcome.REJECTED, Subject.RECIPIENT),
    Reason.CONTENT_REFUSED: (Outcome.REJECTED, Subject.CONTENT),
    Reason.DESTINATION_REFUSED: (Outcome.REJECTED, Subject.DESTINATION),
    Reason.SENDER_REFUSED: (Outcome.UNAVAILABLE, Subject.SENDER),
    Reason.PROVIDER_ACCOUNT: (Outcome.UNAVAILABLE, Subject.ACCOUNT),
    Reason.PROVIDER_UNAVAILABLE: (Outcome.UNAVAILABLE, Subject.PROVIDER),
    Reason.PROVIDER_THROTTLED: (Outcome.THROTTLED, Subject.PROVIDER),
    Reason.OUTCOME_UNKNOWN: (Outcome.UNKNOWN, Subject.PROVIDER),
}


def page() -> str:
    """The whole page."""
    sections = (
        _INTRODUCTION + _lines(_implied_rows()) + _CONSEQUENCES,
        _SMTP + _lines(_smtp_rows()),
        _TWILIO + _lines(_twilio_rows()),
        _VONAGE.format(url=vonage_codes.TABLE[0].url) + _lines(_vonage_rows()),
        _VONAGE_RECEIPTS.format(url=vonage_codes.RECEIPTS[0].url) + _lines(_vonage_receipt_rows()),
        _REPORTS + _lines(_report_rows()),
    )
    return "\n".join(sections)


def _implied_rows() -> Iterable[tuple[str, ...]]:
    for implied, reasons in groupby(_IMPLIED, _IMPLIED.__getitem__):
        outcome, subject = implied
        yield ", ".join(f"`{reason}`" for reason in reasons), f"`{outcome}`", f"`{subject}`"


def _smtp_rows() -> Iterable[tuple[str, ...]]:
    for (stages, words, *columns), rows in groupby(code_table.TABLE, _beside_the_code):
        codes = ", ".join(f"`{row.code}`" for row in rows)
        yield " ".join(filter(None, (codes, stages, words and "*by words*"))), *columns


def _beside_the_code(row: code_table.SmtpCodeRow) -> tuple[str, ...]:
    return ", ".join(row.stages), row.words, row.meaning, _reason(row.verdict)


def _twilio_rows() -> Iterable[tuple[str, ...]]:
    for row in twilio_codes.TABLE:
        yield f"[{row.code}]({row.url}){_dagger(row.basis)}", row.meaning, _reason(row.verdict)


def _vonage_rows() -> Iterable[tuple[str, ...]]:
    for row in vonage_codes.TABLE:
        status = f"{row.code}" if row.url == vonage_codes.TABLE[0].url else f"[{row.code}]({row.url})"
        words = f" `{row.words}`" if row.words else ""
        yield f"{status}{_dagger(row.basis)}{words}", row.meaning, _reason(row.verdict)


def _vonage_receipt_rows() -> Iterable[tuple[str, ...]]:
    for row in vonage_codes.RECEIPTS:
        outcome, _ = _IMPLIED[row.verdict.reason]
        yield f"{row.code}", row.meaning, _reason(replace(row.verdict, outcome=outcome, retry_after_seconds=None))


def _report_rows() -> Iterable[tuple[str, ...]]:
    providers = (twilio_reports.STATUSES, vonage_reports.STATUSES)
    for status in dict.fromkeys(status for statuses in providers for status in statuses.values()):
        words = (", ".join(f"`{word}`" for word, to in statuses.items() if to == status) for statuses in providers)
        yield f"`{status}`", *words


def _dagger(basis: str) -> str:
    return "" if basis == "documented" else " †"


def _reason(verdict: Verdict) -> str:
    """The reason, and what does not follow from it."""
    outcome, subject = _IMPLIED[verdict.reason]
    words = [f"`{verdict.reason}`"]
    if verdict.outcome != outcome:
        words.append(f"`{verdict.outcome}`")
    if verdict.subject != subject:
        words.append(f"about `{verdict.subject}`")
    if verdict.suppress:
        words.append("suppress")
    if verdict.is_doubtful:
        words.append("doubtful")
    if verdict.retry_after_seconds is not None:
        words.append(f"after {verdict.retry_after_seconds:g} s")
    return ", ".join(words)


def _lines(rows: Iterable[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.stdout.write(page())
