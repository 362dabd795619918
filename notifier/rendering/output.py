"""Renders one edition with one context to subject, text and HTML, within the limits of mail and SMS."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from itertools import islice
from typing import Any

import jinja2
from markupsafe import Markup

from notifier.domain.errors import RenderingFailed
from notifier.domain.message import MAX_PART_LENGTH, MAX_SUBJECT_LENGTH
from notifier.domain.record import record
from notifier.domain.statuses import Channel
from notifier.domain.template_variables import ValueRefused, completed
from notifier.rendering.filters import writing_in
from notifier.rendering.loader import UNSUBSCRIBE_URL, Edition, Loaded
from notifier.rendering.locales import formats_for
from notifier.rendering.problems import readable
from notifier.rendering.render_limits import limited_time
from notifier.rendering.sms_segments import Segments, segments

#: The unsubscribe link in a mail that is only previewed.
SAMPLE_LINK = "https://notify.example.com/u/sample"
#: Twilio's limit on the body of a message (error 21617). Characters.
MAX_SMS_LENGTH = 1600

# White space that may end a header line or look as if it did. No-break spaces are French typography and stay.
_BREAKS = re.compile(r"[ \t\n\r\v\f\x1c-\x1f\x85\u2028\u2029]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BLANK_LINES = re.compile(r"\n{3,}")
# No-break spaces are not in the GSM alphabet: a single one would double the price of an SMS.
_PLAIN_SPACES = str.maketrans("\u00a0\u2007\u202f", "   ")


@record(frozen=True, slots=True)
class Rendered:
    template: str
    #: The template's version.
    version: str
    #: Language of the text (BCP 47): that of the edition that was found, not the one that was asked for.
    locale: str
    #: One line; "" for SMS.
    subject: str
    #: Body of the SMS, or the text part of the mail.
    text: str
    #: None for SMS, and for mails with text only, including mails whose HTML part comes out empty.
    html: str | None
    #: SMS only.
    segments: Segments | None


def write(
    loaded: Loaded, locale: str | None, context: Mapping[str, Any], unsubscribe_url: str = SAMPLE_LINK
) -> Rendered:
    """Render the edition for a reader of `locale`. A template that is not transactional may use `unsubscribe_url`.

    Raises:
        RenderingFailed: the context does not fit the template.
    """
    template, edition = loaded.template, loaded.edition(locale)
    names = completed(template.variables, context)
    if not template.transactional:
        # If the template declares it, the producer's value is used.
        names.setdefault(UNSUBSCRIBE_URL, unsubscribe_url)
    # Set last, so that no producer can change them.
    names.update(locale=edition.locale, direction=edition.direction)
    for name in template.html_names:
        if isinstance(names.get(name), str):
            # The variable's type allows it, and the intake lets only named producers use that type.
            names[name] = Markup(names[name])  # noqa: S704
    with writing_in(formats_for(locale, edition.locale)), limited_time():
        if template.channel is Channel.SMS:
            text = _sms(_text(edition, names), edition)
            subject, html, size = "", None, segments(text)
        else:
            subject = _subject(edition, names)
            text = _without_gaps(_text(edition, names)) + "\n"
            html, size = (_part(edition.html, names) if edition.html else None), None
            if html is not None and (not html or html.isspace()):
                html = None  # the template writes it for some contexts only
    return Rendered(
        template=template.name,
        version=template.version,
        locale=edition.locale,
        subject=subject,
        text=text,
        html=html,
        segments=size,
    )


def _part(part: jinja2.Template, names: dict[str, Any]) -> str:
    text = ""
    try:
        # Not `part.generate`, which passes on each piece once more and takes a tenth of the time.
        stream = part.root_render_func(part.new_context(names))
        # In portions, so that an endless text is stopped before it fills the memory.
        while pieces := list(islice(stream, 64)):
            text += "".join(pieces)
            if len(text) > MAX_PART_LENGTH:
                break
    except Exception as error:  # any error of an operator's template; it is not our bug
        raise _failed(part, error) from None
    if len(text) > MAX_PART_LENGTH:
        raise RenderingFailed(f"{part.filename}: longer than {MAX_PART_LENGTH} characters: send less data")
    if not _is_encodable(text):
        raise RenderingFailed(f"{part.filename}: a value holds half a character: send whole Unicode text")
    return text


def _subject(edition: Edition, names: dict[str, Any]) -> str:
    """The subject as one line: a line break would begin another header."""
    assert edition.subject is not None, "a mail without a subject does not load"
    where = edition.subject.filename
    subject = _part(edition.subject, names)
    if not subject.isprintable() or "  " in subject:
        subject = _BREAKS.sub(" ", subject)
    subject = subject.strip()
    if _CONTROL.search(subject):
        raise RenderingFailed(f"{where}: a value in the subject holds control characters: remove them")
    if not subject:
        raise RenderingFailed(f"{where}: the subject is empty: check the values in it")
    if len(subject) > MAX_SUBJECT_LENGTH:
        raise RenderingFailed(f"{where}: the subject is longer than {MAX_SUBJECT_LENGTH} characters: shorten it")
    return subject


def _text(edition: Edition, names: dict[str, Any]) -> str:
    text = _part(edition.text, names).strip()
    if not text:
        raise RenderingFailed(f"{edition.text.filename}: the text is empty: check the values in it")
    return text


def _without_gaps(text: str) -> str:
    """The text with at most one empty line in a row."""
    # A plain search first: the expression takes longer to find that there is nothing to replace.
    return _BLANK_LINES.sub("\n\n", text) if "\n\n\n" in text else text


def _sms(text: str, edition: Edition) -> str:
    text = text.translate(_PLAIN_SPACES).strip()
    if len(text) > MAX_SMS_LENGTH:
        problem = f"{len(text)} characters, and an SMS has at most {MAX_SMS_LENGTH}"
        raise RenderingFailed(f"{edition.text.filename}: {problem}: shorten the text or the values in it")
    return text


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _failed(part: jinja2.Template, error: Exception) -> RenderingFailed:
    try:
        # Gives the frames of the template the lines of its file.
        part.environment.handle_exception()
    except Exception as same:
        error = same
    return RenderingFailed(f"{_place(part, error)}: {readable(_reason(error))}")


def _place(part: jinja2.Template, error: Exception) -> str:
    """File and line: Jinja's frames in the traceback have the names of the template's files."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename.endswith((".txt", ".html"))]
    return f"{inside[-1].filename}:{inside[-1].lineno}" if inside else str(part.filename)


def _reason(error: Exception) -> str:
    match error:
        case jinja2.TemplateError() | ValueRefused():
            return str(error)
        case RecursionError():
            return "it includes or calls itself without end: give it an end, or nest it less deeply"
        case _:
            # Python's text may repeat the value, which may be personal.
            return f"a value is not of the type that is needed here ({type(error).__name__})"
