"""docs/reference/provider-codes.md, written from the tables: `python -m notifier.providers.codes_page > …`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from notifier.providers.mail import code_table
from notifier.providers.outcomes import Verdict
from notifier.providers.twilio import codes as twilio_codes
from notifier.providers.twilio import webhooks as twilio_reports
from notifier.providers.vonage import codes as vonage_codes
from notifier.providers.vonage import webhooks as vonage_reports

_INTRODUCTION = """\
# Provider codes

What an answer of a provider means. This page is written from the tables in `notifier/providers/`
(`mail/code_table.py`, `twilio/codes.py`, `vonage/codes.py`), and a test compares them:
`python -m notifier.providers.codes_page > docs/reference/provider-codes.md`.

| outcome | what delivery does |
|---|---|
| `rejected` | gives up: `failed`, with the reason; with *suppress* the recipient is not sent to again |
| `throttled` | tries another provider, or this one later; not before the pause, if one is stated |
| `unavailable` | the same; with `provider_account` or `sender_refused` it waits until that is mended |
| `unknown` | does not send again blindly: waits for a receipt, then does what the template says |

The column *about* names the subject of an answer: what it tells something about.

| about | what delivery does besides |
|---|---|
| `recipient`, `content` | nothing: other messages are not concerned |
| `destination` | tries the next provider; if none serves it, it fails; the detail names the country or domain |
| `sender` | tries the next provider; three refusals hold this sender back, doubtful ones once a destination |
| `account`, `provider` | opens the circuit: at once for `provider_account`, else at a share of failed calls |

*Doubtful* answers are given for two reasons: we are at fault, or this one destination is not served. The message
waits. If the provider accepts another one of the same sender after this one was first refused, the next refusal
counts as one of the destination.
"""

_SMTP = """\
## E-mail (SMTP)

The first row that fits decides. Enhanced codes (RFC 3463) come before basic ones, and a few rows that go by the
server's words before both. `*` stands for any digit or number. The same table serves bounces, read as at `rcpt`:
only reason and *suppress* count for them, and `provider_unavailable` of a server that gave up trying becomes
`unreachable_recipient`. Without a row: 2xx, 3xx and what is not SMTP at all
mean `unavailable` before the end of the mail was sent, and `unknown` after it, as does an answer that never comes.

Then the text counts. Where it repeats what another server said ("host … said: 550 …"), that server's code counts,
and nothing of it is about our account: it is about the `destination`. An address of ours in it makes a refusal one
of the `sender`, in doubt. A recipient is suppressed only if it names the recipient or nobody. At `rcpt`, an answer
about our account is doubtful: a relay refuses one domain in the same words.

| code | at | words | means | about | outcome | source |
|---|---|---|---|---|---|---|
"""

_TWILIO = """\
## SMS (Twilio)

The same table serves answers to a send and the ErrorCode of status callbacks, for which only reason and *suppress*
count. Any HTTP 5xx is `unknown`, whatever
its code, as is an answer that never comes, breaks off or cannot be read. Any other 4xx is `rejected`
(`provider_rejected`). Without a code of Twilio's, HTTP 401, 403, 404, 405, 407 and 3xx are our account or
address, 408 is `unavailable`, 429 is `throttled`. *Observed* marks what rests on experience, not on Twilio's page.

| code | means | about | outcome | source |
|---|---|---|---|---|
"""

_VONAGE = """\
## SMS (Vonage)

Vonage answers HTTP 200 with a status for each part of the text. All parts `0` is a receipt. All parts refused is
the gravest of their outcomes: `unknown`, then `rejected`, `unavailable`, `throttled`. Some accepted and some
refused is `unknown`, as is an answer that never comes, breaks off or cannot be read: what went out cannot be
called back, and sending again would double it. The first row that fits decides; any other status is `rejected`
(`provider_rejected`). An HTTP status other than 2xx means what it means for Twilio without a code.

| status | words | means | about | outcome | source |
|---|---|---|---|---|---|
"""


_VONAGE_RECEIPTS = """\
### Delivery receipts of Vonage

What the `err-code` of a receipt says about a message that did not arrive: the notification's reason. Any other is
`provider_rejected`.

| err-code | means | about | reason | source |
|---|---|---|---|---|
"""

#: What providers report later, and what it makes of a notification.
_REPORTS = """\
## What is reported later

| provider | word | status |
|---|---|---|
"""


def page() -> str:
    sections = (
        _INTRODUCTION,
        _SMTP + _lines(_smtp_rows()),
        _TWILIO + _lines(_twilio_rows()),
        _VONAGE + _lines(_vonage_rows()),
        _VONAGE_RECEIPTS + _lines(_vonage_receipt_rows()),
        _REPORTS + _lines(_report_rows()),
    )
    return "\n".join(sections)


def _smtp_rows() -> Iterable[tuple[str, ...]]:
    for row in code_table.TABLE:
        stages = ", ".join(row.stages) or "any"
        words = f"`{row.words}`".replace("|", "\\|") if row.words else ""
        yield f"`{row.code}`", stages, words, row.meaning, _about(row.verdict), _outcome(row.verdict), row.source


def _twilio_rows() -> Iterable[tuple[str, ...]]:
    for row in twilio_codes.TABLE:
        yield (f"{row.code}", row.meaning, _about(row.verdict), _outcome(row.verdict), f"[{row.basis}]({row.url})")


def _vonage_rows() -> Iterable[tuple[str, ...]]:
    for row in vonage_codes.TABLE:
        words = f"`{row.words}`" if row.words else ""
        yield (
            f"{row.code}",
            words,
            row.meaning,
            _about(row.verdict),
            _outcome(row.verdict),
            f"[{row.basis}]({row.url})",
        )


def _vonage_receipt_rows() -> Iterable[tuple[str, ...]]:
    for row in vonage_codes.RECEIPTS:
        suppress = ", suppress" if row.verdict.suppress else ""
        yield (
            f"{row.code}",
            row.meaning,
            _about(row.verdict),
            f"`{row.verdict.reason}`{suppress}",
            f"[documented]({row.url})",
        )


def _report_rows() -> Iterable[tuple[str, ...]]:
    for provider, statuses in (("Twilio", twilio_reports.STATUSES), ("Vonage", vonage_reports.STATUSES)):
        for word, status in statuses.items():
            yield provider, f"`{word}`", f"`{status}`"
        yield provider, "any other", "nothing; it is in the story"


def _about(verdict: Verdict) -> str:
    return f"`{verdict.subject}`"


def _outcome(verdict: Verdict) -> str:
    words = [f"`{verdict.outcome}`", f"`{verdict.reason}`"]
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
