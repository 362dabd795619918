"""Reads reports in no standard format: from the text that people read, and a few telling headers.

Three questions are separate: who wrote it (a mail system or a person), whether it says that a mail did not arrive,
and why. No answer is enough alone: a phrase in a person's mail is not a report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from email.message import Message
from email.utils import getaddresses

from flufl.bounce import all_failures

from notifier.config.logs import log
from notifier.feedback.bounce_report import Action, Bounce
from notifier.feedback.mail_parts import all_of, is_text, parts, text_of, value_of, words_of
from notifier.providers.mail.code_table import Stage
from notifier.providers.mail.codes import SmtpReply
from notifier.providers.mail.phrases import kinds_in

#: Maximum characters read of the visible text.
MAX_SAID = 8000
#: Maximum length of an answer taken from a text. Characters.
_MAX_ANSWER = 700

ADDRESS = re.compile(r"[^\s<>,;:\"()\[\]]{1,64}@[\w.-]{1,255}\w")
#: An enhanced code of RFC 3463. Numbers with a subject above 7 are versions.
CODE = re.compile(r"(?<![\d.])([245])\.([0-7])\.(\d{1,3})(?![\d.])")
#: SMTP replies that are in use, so that "587", a port, and "500 MB", a size, do not match.
BASIC = re.compile(
    r"(?<![\d.,:#/-])((?:4(?:2[12]|3[0-2]|4[1-9]|5[0-5]|7[01])|5(?:0[0-4]|1\d|2[0-3]|3[0-8]|41|5[0-7]|6\d|7\d)))"
    r"(?=[ :;#)\]-](?! ?(?:[KMG]i?B|bytes|characters|days|hours|users|recipients|messages|people)\b)|$)",
    re.MULTILINE,
)

_SYSTEM = re.compile(
    r"mailer[-_. ]?d(a)?emon|system administrator|mail ?server|mail[-_. ]?daemon|m(ail)?daemon@|post[-_]?master|mail[-_. ]?(delivery|system|transport|administrator)|"
    r"\bbounces?@|undeliver|non-?deliver|delivery (sub)?system|系统退信|系統退信|mail-?system|\bmta\b|mdaemon",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"undeliver|returned (to sender|mail|message|e-?mail)|return(ed|ing) (message|mail)|delivery (status|failure|failed|has failed|error|problem|report|notification|delayed)|"
    r"(mail|message|e-?mail)[^:]{0,30}(delivery|deliver)[^:]{0,20}(fail|error|problem)|failure notice|non[- ]?deliver|not (be )?delivered|could ?n.?[o']t (be )?(send|sent|deliver)|"
    r"(message|mail) (rejected|bounced|status)|\brejected\b|\bbounce\b|mail (system|delivery) error|warning: (message|could not)|delivery incomplete|"
    r"unzustellbar|nicht (zu)?gestellt|nicht übermittelt|zustell\w*(fehler|problem)|non (remis|distribu|délivr)|échec|no (se )?(pudo|puede|entregad)|devuelto|"
    r"no entregad|não entreg|mancat[ao]|non recapit|non consegn|impossibile|недостав|не доставлен|ошибка доставки|возвращ|невозможно доставить|"
    r"退信|投递失败|投遞失敗|无法投递|发送失败|退回|配信(不能|エラー)|届けられません|送信できません|エラー|niedostarcz|zwrot|onbestelbaar|niet bezorgd|iletilemedi|teslim edilemedi",
    re.IGNORECASE,
)
_NOT_DELIVERED = re.compile(
    r"(could|can|was|has|is|were|have|be|did|wo|does)( ?n.?[o']?t| not)( \w+){0,3} (be(en)? )?(deliver|reach|sent|accept|transmit)|undeliver|"
    r"deliver[^.\n]{0,60}(fail|error|abort|problem|unsuccess)|fail[^.\n]{0,20}(to|in) deliver|(un|not )able to (be )?(deliver|send)|return(ed|ing) (to sender|message|mail)|"
    r"(rejected|refused|bounced)[^.\n]{0,30}(your|the|this) (e-?mail|message|mail)|(message|mail)[^.\n]{0,40}(rejected|refused|bounced|returned)|permanent(ly)?[^.\n]{0,20}(error|fail|fatal)|giv(en|ing|e) up|"
    r"did not reach|nicht[^.\n]{0,40}(zugestellt|übermittelt|ausgeliefert|erreicht)|unzustellbar|n.a pas pu[^.\n]{0,20}(remis|livr|distribu|délivr|achemin)|non (remis|distribu)|"
    r"no (se )?(pudo|puede|ha sido|fue|ha podido)[^.\n]{0,30}entreg|não (pôde|foi|pode)[^.\n]{0,20}entreg|non (è stato|può|e stato)[^.\n]{0,30}(recapit|consegn)|impossibile (recapitare|consegnare)|"
    r"не (был[оа]? |может быть |удалось )*(доставлен|доставить|отправлен)|(无法|未能|不能)(送达|投递|发送|到达|被送达)|(被|已)退(回|信)|退信|配信できません|届けることができません|送信できません|"
    r"nie (została|mogła|można)[^.\n]{0,30}(dostarcz|doręcz)|niet[^.\n]{0,30}(bezorgd|afgeleverd)",
    re.IGNORECASE,
)
_DELAYED = re.compile(
    r"(not|n.t) yet (been )?deliver|(has|have|was|were|is|been) delayed|\bdelay(ed)?\b[^.\n]{0,40}(hours?|mail|message|deliver)|still (being )?(tried|trying|retr)|"
    r"(will|continue to)(?! not| no longer)[^.\n]{0,30}(be )?(retr(y|ied)|tried again|keep trying|attempt)|delivery (delayed|incomplete)|warning message only|(do|need) not (need to )?resend|"
    r"noch nicht zugestellt|verzögert|retardé|se seguirá intentando|задерж|尚未(送达|投递)|延迟",
    re.IGNORECASE,
)
#: Gmail and Sendmail warn about recipients for whom delivery has not failed yet.
_WARNING = re.compile(r"warning message only|\(delay\)|not need to resend|delivery delayed", re.IGNORECASE)
_GIVEN_UP = re.compile(
    r"permanent|giv(en|ing|e) up|\bfatal\b|failed permanently|not going to try again|could not be delivered|(will|can) ?not (be )?(retr|tried again)|no (further|more) (attempts|retries)|has been returned|final attempt|不再",
    re.IGNORECASE,
)

#: The beginning of the returned mail, or a part of it: the text after it was ours.
_RETURNED = re.compile(
    r"^[ \t>]*(?:[-=_*+]{2,}[^\n]{0,20}(?:(?:copy|header|body|text|top|unsent|original|returned|undelivered|forwarded|below|begin|included)\b)[^\n]*"
    r"|(?:this|here|the following|included|attached|below|following)[^\n]{0,60}(?:is |are )?(?:a |the )?(?:copy|headers?|body)\b[^\n]{0,60}(?:message|mail|header)[^\n]*"
    r"|(?:original|returned|undelivered|unsent|message text|message header)s?[^\n]{0,20}(?:message|mail|follows|headers?)\b[^\n]{0,20}[:.-]*"
    r"|(?:received|return-path|message-id|x-mailer|dkim-signature): .*"
    r"|-{2,} ?(?:原始邮件|原邮件)[^\n]*|(?:исходное|оригинальное) (?:письмо|сообщение)[^\n]*|ursprüngliche nachricht[^\n]*)$",
    re.IGNORECASE | re.MULTILINE,
)
_ASKED_FOR = re.compile(r"RCPT TO: ?<([^<>\n]{1,320})>", re.IGNORECASE)
_PASSED_ON = re.compile(r"undisclosed address|(generated|expanded) from|forward(ed|ing) (for|to)\b", re.IGNORECASE)
_STAGES = (
    (Stage.MAIL, re.compile(r"(in reply to|after|in response to)( the)? MAIL( FROM)?\b", re.IGNORECASE)),
    (
        Stage.BODY,
        re.compile(r"(in reply to|after|in response to)( the)? (end of (data|message)|DATA\b)", re.IGNORECASE),
    ),
    (
        Stage.CONNECT,
        re.compile(
            r"(after|in reply to|in response to)( the)? (initial connection|EHLO|HELO|pipelined)", re.IGNORECASE
        ),
    ),
)
_REPLY_SUBJECT = re.compile(
    r"^\W*(auto(matic|mated|matische)?[-: ]*(reply|response|re\b|antwort)|automatische antwort|réponse automatique|respuesta automática|risposta automatica|resposta automática|"
    r"out of (the )?office|abwesen|absence|ausente|fuera de|vacation|away from|on (leave|holiday)|i am (away|out)|自动回复|自動回覆|自動応答|不在|автоответ|автоматический ответ|odpowiedź automatyczna|afwezig|read:|gelesen:|lu :|(please )?confirm your (message|e?-?mail))",
    re.IGNORECASE,
)


def said_in(mail: Message) -> str:
    """The text that people read, up to the returned mail."""
    texts = [part for part in parts(mail)[:20] if is_text(part)]
    plain = [part for part in texts if part.get_content_type() in ("text/plain", "text") or part is mail]
    found = "\n".join(text_of(part) for part in (plain or texts)[:3])
    return before_returned(found)[:MAX_SAID]


def before_returned(text: str) -> str:
    for found in _RETURNED.finditer(text):
        # A report that begins with such a line contains nothing else.
        if text[: found.start()].strip():
            return text[: found.start()]
    return text


def asked_for(said: str) -> tuple[str, ...]:
    """The recipients that were given to the server: `RCPT TO:<zoe@example.net>`."""
    found = (address for line in _ASKED_FOR.findall(said)[:20] for address in ADDRESS.findall(line))
    return tuple(dict.fromkeys(found))


def is_passed_on(said: str) -> bool:
    """Whether the text mentions an address behind the one that we sent to."""
    return _PASSED_ON.search(said) is not None


def stage_of(said: str) -> Stage:
    """The command that was refused; RCPT if the text does not say."""
    words = " ".join(said.split())
    return next((stage for stage, pattern in _STAGES if pattern.search(words)), Stage.RCPT)


def answer_in(said: str) -> str:
    """The part that gives the reason: from the first code on, or the paragraph that explains it."""
    code = min((found.start() for found in (BASIC.search(said), CODE.search(said)) if found), default=None)
    if code is not None:
        begin = said.rfind("\n", 0, code) + 1
        # The text before the code comes from the server that returns the mail, not from the one that refused it.
        if code - begin > 200 or ADDRESS.search(said, begin, code):
            begin = code
        end = re.search(r"\n[ \t]*\n", said[code:])
        return " ".join(said[begin : code + end.start() if end else begin + _MAX_ANSWER].split())[:_MAX_ANSWER]
    paragraphs = [" ".join(one.split()) for one in re.split(r"\n[ \t]*\n", said) if one.strip()]
    telling = [one for one in paragraphs if kinds_in(one)]
    named = [one for one in paragraphs if ADDRESS.search(one)]
    # A paragraph with both the recipient and a reason is the right one.
    both = [one for one in telling if one in named]
    return next(iter(both or telling or named or paragraphs), "")[:_MAX_ANSWER]


def read_text(mail: Message, as_sent: Callable[[], Message]) -> Bounce | None:
    """The report in the mail, if it has no standard format. `as_sent` parses the mail again as the standard
    library does."""
    said, subject, named = said_in(mail), words_of(mail, "Subject"), _failed_recipients(mail)
    is_system = is_from_a_system(mail) or bool(named)
    tells_why = bool(BASIC.search(said) or CODE.search(said) or kinds_in(said))
    later, never = _odd(as_sent) if is_system or tells_why else (frozenset[str](), frozenset[str]())
    says_so = bool(_SUBJECT.search(subject)), bool(_NOT_DELIVERED.search(said))
    is_one = bool(later or never) or (all(says_so) and tells_why)
    if not is_system and (is_reply_subject(subject) or not is_one):
        return None
    if _is_delay(f"{subject}\n{said}", is_named=bool(named), is_late=bool(later and not never)):
        found = _bounce(Action.DELAYED, said, tuple(later))
    elif is_one or named or (is_system and (any(says_so) or BASIC.search(said))):
        # If the author marks the recipients, do not guess.
        found = _bounce(Action.FAILED, said, named or tuple(never))
    else:
        return None
    return replace(found, is_doubtful=not is_system)


def _is_delay(words: str, *, is_named: bool, is_late: bool) -> bool:
    """Whether delivery is still being tried. A header that names recipients means failure, with few exceptions."""
    if _WARNING.search(words):
        return True
    return not is_named and (is_late or bool(_DELAYED.search(words) and not _GIVEN_UP.search(words)))


def _bounce(action: Action, said: str, named: tuple[str, ...]) -> Bounce:
    words = answer_in(said)
    named = named or tuple(dict.fromkeys(ADDRESS.findall(_about_recipient(said))))[:10]
    basic, enhanced = BASIC.search(words), specific_code(words)
    first = enhanced[:1] or ("" if basic is None else basic[1][0])
    code = basic[1] if basic is not None and basic[1][0] == first else f"{first}50" if first else ""
    fallback = "450" if action is Action.DELAYED else "550"
    recipient = min(named) if named else ""
    targets = max(1, len(named)) if action is Action.FAILED else 1
    named = (*named, *asked_for(said))
    return Bounce(
        action,
        SmtpReply(code or fallback, enhanced, words),
        recipient=recipient,
        named=named,
        targets=2 if action is Action.FAILED and is_passed_on(said) else targets,
        is_quoted=bool(code),
        stage=stage_of(said),
    )


def _about_recipient(said: str) -> str:
    """Addresses on a separate line, or before what is said about them: `<zoe@example.net>:`."""
    found = re.findall(rf"^[ \t>*•-]*<?({ADDRESS.pattern})>?[ \t]*(?::.*|\(.*|\.)?$", said, re.MULTILINE)
    return " ".join(found)


def specific_code(text: str) -> str:
    """The most specific enhanced code: "5.0.0" and "5.0.350" say nothing, "5.1.0" says little. "": there is
    none."""
    codes = [found[0] for found in CODE.finditer(text[:4000]) if found[1] != "2"]
    return max(codes, key=lambda code: ("0" not in code.split(".")[1:], code.split(".")[1] != "0"), default="")


def _failed_recipients(mail: Message) -> tuple[str, ...]:
    """Recipients that Exim, Gmail and others name in their own headers."""
    headers = [value for name in ("X-Failed-Recipients", "X-Failed-Recipient") for value in all_of(mail, name)]
    return tuple(dict.fromkeys(address for _, address in getaddresses(headers) if "@" in address))[:20]


def _odd(as_sent: Callable[[], Message]) -> tuple[frozenset[str], frozenset[str]]:
    """Recipients (later, never) as flufl.bounce finds them: it knows the formats of many servers."""
    try:
        content = as_sent()
        if "From" not in content:
            content["From"] = "<>"  # one of its detectors requires this header
        later, never = all_failures(content)
    except Exception as error:
        log.info("bounce.unreadable", error=type(error).__name__)
        return frozenset(), frozenset()
    return _as_text(later), _as_text(never)


def _as_text(found: Iterable[bytes]) -> frozenset[str]:
    return frozenset(address.decode("utf-8", "replace") for address in found)


def is_from_a_system(mail: Message) -> bool:
    """Whether the author claims to be a mail system."""
    return bool(_SYSTEM.search(words_of(mail, "From")))


def is_reply_subject(subject: str) -> bool:
    """Whether the subject looks like an automatic reply for a person."""
    return bool(_REPLY_SUBJECT.search(subject))


def is_reply(mail: Message) -> bool:
    """Whether it is an automatic reply for a person: out of office, a read receipt, a challenge. Called last, for
    mails that nothing else can read, because bounces have the same headers."""
    if any(part.get_content_type() == "text/disposition-notification" for part in parts(mail)):
        return True
    # "Auto-Submitted" says nothing, because bounces have it as well.
    marked = any(name in mail for name in ("X-Autoreply", "X-Autorespond", "X-Autoresponse", "X-Auto-Reply"))
    marked = marked or value_of(mail, "Precedence").lower() in ("auto_reply", "auto-reply")
    subject = words_of(mail, "Subject")
    if is_reply_subject(subject):
        return not is_from_a_system(mail)
    # A bounce in unknown words is left for people to read.
    return marked and not is_from_a_system(mail) and not _SUBJECT.search(subject)
