"""Decides what a delivery report means for the notification and for its recipient.

A suppression keeps all mail from somebody, so it needs strong evidence: the code, or clear words, of the server
that refused the mail, about exactly the address that we sent to, and nothing that contradicts it. Weaker reports
end the notification without suppressing its recipient, or count as soft bounces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from html import unescape
from typing import assert_never

from notifier.domain.statuses import Outcome, Reason, Status, Subject
from notifier.feedback.bounce_report import Action, Bounce
from notifier.feedback.bounce_texts import ADDRESS, CODE
from notifier.providers.mail.code_table import Stage
from notifier.providers.mail.codes import judge
from notifier.providers.mail.phrases import Kind, is_about_sender, is_temporary, kinds_in
from notifier.providers.outcomes import Verdict


class Whose(StrEnum):
    THEIRS = "theirs"  #: the address that we sent to
    OURS = "ours"  #: the address of a sender identity, or a return path
    OTHERS = "others"  #: somebody else's address


@dataclass(frozen=True, slots=True)
class Meaning:
    status: Status
    reason: Reason | None = None
    #: The address does not exist.
    is_dead: bool = False
    #: The address exists, but does not accept mail at the moment.
    is_soft: bool = False
    #: It is about an address behind the recipient's: a list member, or where their mail is forwarded to.
    is_behind: bool = False


_SENDER = Meaning(Status.UNDELIVERED, Reason.SENDER_REFUSED)
_SOFT = Meaning(Status.UNDELIVERED, Reason.UNREACHABLE_RECIPIENT, is_soft=True)

#: Role addresses, where people ask for help.
_ROLE = re.compile(
    r"(abuse|admin\w*|help\w*|hostmaster|mailer-daemon|no-?reply|postmaster|security|spam|support|webmaster|info)\W?",
    re.IGNORECASE,
)
#: Rewritten senders, which are never recipients: SRS0=…=example.com=shop@…, prvs=…=shop@example.com.
_REWRITTEN = re.compile(r"SRS[01][=+-]|(prvs|msprvs1|btv1)=", re.IGNORECASE)
#: Other spellings of @: `shop=40example.com`, `shop @ example.com`, `shop(at)example.com`.
_AT = re.compile(r"=40|%40|\(at\)|\[at\]| ?@ ?", re.IGNORECASE)
_DOMAIN = re.compile(r"(?<![\w.-])[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
#: Matches words other than those in every answer: "smtp", "rcpt", "to", "error", "rejected".
_UNKNOWN_WORD = re.compile(
    r"(?!(?:smtp|rcpt|to|error|rejected|refused|recipient|address|permanent|failure|mail|message|delivery|not)\b)\b[^\W\d_]{3,}",
    re.IGNORECASE,
)
#: These contradict a code for "no such mailbox".
_AGAINST_DEAD = frozenset({Kind.FULL, Kind.EXPIRED, Kind.RATE, Kind.SENDER, Kind.POLICY})
#: The family of codes for "no such mailbox".
_NOBODY = "nobody"
#: Soft by the text alone. A closed mailbox may be opened again.
_BY_WORDS = (Kind.FULL, Kind.EXPIRED, Kind.CLOSED, Kind.UNROUTABLE)


def is_believable(bounce: Bounce, whose: Callable[[str], Whose]) -> bool:
    """Whether it is a report about our mail at all. A doubtful report must name the recipient."""
    return not bounce.is_doubtful or any(_is_theirs(name, whose) for name in bounce.named)


def meaning_of(bounce: Bounce, whose: Callable[[str], Whose]) -> Meaning:
    """What the report means. `whose` tells whose an address in it is."""
    match bounce.action:
        case Action.FAILED | Action.EXPIRED:
            return _failure(bounce, whose)
        case Action.DELIVERED:
            return Meaning(Status.DELIVERED)
        case Action.DELAYED | Action.RELAYED | Action.EXPANDED:
            # The reporting server has the mail. This is only news if we did not know that the mail was accepted.
            return Meaning(Status.SENT)
        case _:
            assert_never(bounce.action)


def _failure(bounce: Bounce, whose: Callable[[str], Whose]) -> Meaning:
    text = _AT.sub("@", unescape(bounce.answer.text[:4000]))
    named = {address: _whose(address, whose) for address in ADDRESS.findall(text)}
    ours = [address for address, one in named.items() if one is Whose.OURS]
    kinds = kinds_in(text)
    if bounce.action is Action.EXPIRED:
        kinds |= {Kind.EXPIRED}
    if (ours and bounce.is_quoted) or bounce.stage is Stage.MAIL or Kind.SENDER in kinds:
        return _about_sender(bounce, ours)
    theirs = next((address for address, one in named.items() if one is Whose.THEIRS), "")
    verdict = judge(bounce.stage, bounce.answer, recipient=theirs, ours=ours if bounce.is_quoted else ())
    found = _by_evidence(bounce, verdict, kinds, names_them=bool(theirs))
    if (found.is_dead or found.is_soft) and is_about_sender(text):
        return _SENDER
    if found.is_dead and _names_our_domain(text, bounce, whose):
        return _SOFT if theirs else _SENDER
    if (found.is_dead or found.is_soft) and _is_behind(bounce, named, whose):
        # The recipient's own address works, so it must not count as a soft bounce.
        reason = Reason.INVALID_RECIPIENT if found.is_dead else Reason.PROVIDER_REJECTED
        return Meaning(Status.UNDELIVERED, reason, is_behind=True)
    return found


def _about_sender(bounce: Bounce, ours: list[str]) -> Meaning:
    """The table's reason if it is about us. Otherwise "sender refused", whatever the text says."""
    verdict = judge(bounce.stage, bounce.answer, ours=ours)
    is_about_us = verdict.subject in (Subject.SENDER, Subject.ACCOUNT) and not verdict.suppress
    return Meaning(Status.UNDELIVERED, verdict.reason) if is_about_us else _SENDER


def _by_evidence(bounce: Bounce, verdict: Verdict, kinds: frozenset[Kind], *, names_them: bool) -> Meaning:
    code = bounce.answer.enhanced
    if Kind.RATE in kinds:
        # "5.2.1 … receiving mail at a rate": the mailbox exists and gets too much at the moment.
        return Meaning(Status.UNDELIVERED, Reason.PROVIDER_THROTTLED)
    by_code, by_words = verdict.suppress, Kind.DEAD in kinds
    is_certain = by_code or (by_words and _is_vague(code))
    if is_certain and not _is_contradicted(bounce, kinds, code):
        if _is_supported(bounce, kinds, code, names_them=names_them):
            return Meaning(
                Status.UNDELIVERED, verdict.reason if by_code else Reason.INVALID_RECIPIENT, is_dead=True
            )
        return _SOFT
    if is_certain or by_words:
        return _SOFT
    if code and _family(code) == _NOBODY and verdict.subject in (Subject.RECIPIENT, Subject.CONTENT):
        # The report says "no such mailbox", but quotes a server that says something else.
        return _SOFT
    if any(kind in kinds for kind in _BY_WORDS) and (_is_vague(code) or Kind.POLICY not in kinds):
        return _SOFT
    return _as_judged(verdict)


def _as_judged(verdict: Verdict) -> Meaning:
    # If a server has given up, "try again later" means that the recipient cannot be reached.
    is_put_off = verdict.outcome in (Outcome.UNAVAILABLE, Outcome.UNKNOWN)
    is_about_us = verdict.reason in (
        Reason.PROVIDER_ACCOUNT,
        Reason.PROVIDER_THROTTLED,
        Reason.SENDER_REFUSED,
        Reason.DESTINATION_REFUSED,
    )
    reason = Reason.UNREACHABLE_RECIPIENT if is_put_off and not is_about_us else verdict.reason
    return Meaning(Status.UNDELIVERED, reason, is_soft=reason is Reason.UNREACHABLE_RECIPIENT)


def _is_vague(code: str) -> bool:
    """Whether the code only says that something went wrong: no code, 5.0.0, 5.0.350, 5.1.0."""
    return not code or code.split(".")[1] == "0" or code.split(".")[2] == "0"


def _is_contradicted(bounce: Bounce, kinds: frozenset[Kind], code: str) -> bool:
    """Whether something in the report contradicts "no such mailbox"."""
    if kinds & _AGAINST_DEAD or bounce.action is Action.EXPIRED:
        return True
    # If a server could not be reached, that says nothing about its mailboxes. A domain that does not exist has no
    # mailboxes.
    if Kind.UNROUTABLE in kinds and code not in ("5.1.2", "5.1.10", "5.4.4"):
        return True
    if is_temporary(bounce.answer.text):
        return True
    if not _is_vague(code) and _family(code) != _NOBODY:
        return True
    if "4" in (code[:1], bounce.status[:1], bounce.answer.basic[:1]):
        return True
    # If one server repeats another, either of two codes may be meant.
    codes = [found[0] for found in CODE.finditer(bounce.answer.text)] + [bounce.status]
    return bool(code) and any(not _is_vague(one) and _family(one) != _family(code) for one in codes)


def _family(code: str) -> str:
    """The code's family. Codes of one family do not contradict each other: "bad address" and "mailbox disabled"
    both mean that nobody is there."""
    if code in ("5.1.7", "5.1.8"):
        return "sender"
    return _NOBODY if code.startswith("5.1.") or code == "5.2.1" else code.rpartition(".")[0]


def _is_supported(bounce: Bounce, kinds: frozenset[Kind], code: str, *, names_them: bool) -> bool:
    """Whether there is more evidence than the reporting server's default code."""
    if kinds & {Kind.DEAD, Kind.CLOSED, Kind.UNROUTABLE} or (
        code and code in bounce.answer.text and not _has_words(bounce.answer.text)
    ):
        # A phrase without an address or a code may be about anybody.
        return names_them or bool(code or bounce.named) or bounce.is_quoted
    # The reporting server decides about its own mailboxes; it would have quoted another server.
    return not bounce.remote and not bounce.is_quoted


def _is_behind(bounce: Bounce, named: dict[str, Whose], whose: Callable[[str], Whose]) -> bool:
    """Whether the report is about an address other than the one that we sent to."""
    if bounce.targets > 1 or not all(_is_theirs(name, whose) for name in bounce.named):
        return True
    others = [address for address, one in named.items() if one is Whose.OTHERS and not _ROLE.match(address)]
    return bool(others) and Whose.THEIRS not in named.values()


def _names_our_domain(text: str, bounce: Bounce, whose: Callable[[str], Whose]) -> bool:
    """Whether the text names a domain of ours that is not the recipient's."""
    theirs = {name.rpartition("@")[2].lower() for name in (*bounce.named, *ADDRESS.findall(text))}
    found = {one.lower() for one in _DOMAIN.findall(ADDRESS.sub(" ", text))[:50]} - theirs
    return any(whose(f"@{domain}") is Whose.OURS for domain in found)


def _has_words(text: str) -> bool:
    """Whether the text has words besides codes, addresses and links. Unknown words may say anything."""
    return _UNKNOWN_WORD.search(_DOMAIN.sub(" ", ADDRESS.sub(" ", text))) is not None


def _whose(address: str, whose: Callable[[str], Whose]) -> Whose:
    return Whose.OURS if _REWRITTEN.match(address) else whose(address.strip("'\"."))


def _is_theirs(address: str, whose: Callable[[str], Whose]) -> bool:
    return any(whose(one) is Whose.THEIRS for one in spellings_of(address))


def spellings_of(address: str) -> Iterator[str]:
    r"""The address as written, and as RFC 3461 (xtext, "+2B") and RFC 6533 (`\x{E9}`) encode it."""
    yield address
    if "+" in address:
        yield re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), address)
    if "\\x{" in address:
        yield re.sub(r"\\x\{([0-9A-Fa-f]{2,6})\}", _character, address)


def _character(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    return chr(number) if number < 0xD800 or 0xE000 <= number < 0x110000 else "\ufffd"
