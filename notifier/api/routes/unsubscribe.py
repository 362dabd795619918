"""The page behind an unsubscribe link, and the one-click unsubscribe of mail programs (RFC 8058).

It needs no key: the link's token says which mails it ends. GET changes nothing and reads no database, because
scanners follow every link. A link that we did not make always gets the same answer, whatever it names. The
sender's identity and the templates tell who sent the mail and what its category is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import compat32
from html import escape
from types import MappingProxyType
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from notifier.api.dependencies import SuppressionsDep, TokensDep, UnsubscribeNamesDep
from notifier.api.key_shares import for_outside
from notifier.api.routes.webhooks import read_body
from notifier.operations.unsubscribe_names import UnsubscribeNames
from notifier.rendering.locales import fallbacks
from notifier.security.tokens import UnsubscribeLink

router = APIRouter(include_in_schema=False)

#: The page loads, runs and caches nothing, cannot be framed, and gives its address to no other page.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
    "X-Content-Type-Options": "nosniff",
}
_ONE_CLICK = "List-Unsubscribe=One-Click"
_UNDO = "undo"
#: Our forms have one field; a form with more fields than this is not read.
_MAX_FIELDS = 100


@dataclass(frozen=True, slots=True)
class _Words:
    """The page's texts in one language. `{}` is the category's name."""

    title: str
    question: str
    button: str
    done: str
    done_text: str
    undo: str
    undone: str
    undone_text: str
    broken: str
    broken_text: str


_EN = _Words(
    "Unsubscribe",
    "Do you want to stop receiving e-mails of the kind “{}”?",
    "Unsubscribe",
    "You are unsubscribed",
    "You will get no more e-mails of the kind “{}”. One that is already on its way may still arrive.",
    "Undo: keep sending them",
    "You are subscribed again",
    "You will get e-mails of the kind “{}” as before.",
    "This link does not work",
    "It is not complete, or it is not valid any more. Copy the whole link from the e-mail, or use the link in a "
    "newer one.",
)
_LANGUAGES: Mapping[str, _Words] = MappingProxyType(
    {
        "en": _EN,
        "fr": _Words(
            "Se désabonner",
            "Ne plus recevoir les e-mails de type « {} » ?",
            "Se désabonner",
            "Vous êtes désabonné",
            "Vous ne recevrez plus d’e-mails de type « {} ». Un message déjà parti peut encore arriver.",
            "Annuler : continuer à les recevoir",
            "Vous êtes de nouveau abonné",
            "Vous recevrez les e-mails de type « {} » comme avant.",
            "Ce lien ne fonctionne pas",
            "Il est incomplet ou n’est plus valable. Copiez le lien entier depuis l’e-mail, ou utilisez celui "
            "d’un message plus récent.",
        ),
        "zh-Hans": _Words(
            "退订",
            "不再接收“{}”类邮件？",
            "退订",
            "您已退订",
            "您将不再收到“{}”类邮件。已经发出的邮件可能仍会送达。",
            "撤销：继续接收",
            "您已重新订阅",
            "您将照常收到“{}”类邮件。",
            "此链接无效",
            "链接不完整或已失效。请从邮件中复制完整的链接，或使用较新邮件中的链接。",
        ),
    }
)

_PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{heading}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1.125rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 12vh auto 0; padding: 0 1.25rem; }}
.sender {{ margin: 0 0 1.5rem; font-size: 1rem; opacity: .75; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; }}
button {{ font: inherit; padding: .6rem 1.2rem; border: 2px solid currentColor; border-radius: .4rem;
  background: transparent; color: inherit; cursor: pointer; }}
button:focus-visible {{ outline: 3px solid Highlight; outline-offset: 2px; }}
</style>
</head>
<body>
<main>
{sender}<h1>{title}</h1>
<p>{text}</p>
{form}</main>
</body>
</html>
"""
_FORM = """<form method="post">
<input type="hidden" name="{name}" value="{value}">
<button type="submit">{button}</button>
</form>
"""


@router.api_route("/u/{token}", methods=["GET", "HEAD"])
async def ask(tokens: TokensDep, names: UnsubscribeNamesDep, token: str) -> Response:
    """The page with a button. Changes nothing."""
    ending = tokens.read_link(token)
    if ending is None:
        return _broken()
    subject = await for_outside(_subject, names, ending)
    name, _, value = _ONE_CLICK.partition("=")
    form = _FORM.format(name=name, value=value, button=subject.words.button)
    return subject.page(subject.words.title, subject.words.question, form)


@router.post("/u/{token}")
async def act(
    tokens: TokensDep, names: UnsubscribeNamesDep, suppressions: SuppressionsDep, request: Request, token: str
) -> Response:
    """The button, the one click of a mail program, or what takes it back. The same again does nothing."""
    ending = tokens.read_link(token)
    if ending is None:
        return _broken()
    wish = await for_outside(_wish, await read_body(request), request.headers.get("content-type", ""))
    # The wish is carried out first, so that it counts even if the page cannot be made.
    if wish == _UNDO:
        await for_outside(suppressions.resubscribe, ending)
    elif wish == _ONE_CLICK:
        await for_outside(suppressions.unsubscribe, ending)
    subject = await for_outside(_subject, names, ending)
    words = subject.words
    if wish == _UNDO:
        return subject.page(words.undone, words.undone_text)
    if wish == _ONE_CLICK:
        form = _FORM.format(name=_UNDO, value="yes", button=words.undo)
        return subject.page(words.done, words.done_text, form)
    # A POST without the field of RFC 8058 is not the recipient's wish.
    return subject.page(words.broken, words.broken_text, status=400)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a link is about, in the language of its page."""

    language: str
    words: _Words
    category: str
    #: "": the identity has no name.
    sender: str

    def page(self, title: str, text: str, form: str = "", *, status: int = 200) -> Response:
        text = text.format(self.category)
        return _page(self.language, title, text, form, sender=self.sender, status=status)


def _subject(names: UnsubscribeNames, ending: UnsubscribeLink) -> _Subject:
    language = next((tag for tag in fallbacks(ending.locale) if tag in _LANGUAGES), "en")
    category = names.of_category(ending.category, (*fallbacks(ending.locale), language))
    return _Subject(language, _LANGUAGES[language], category, names.of_sender(ending.identity))


def _wish(body: bytes, content_type: str) -> str:
    """What a form asks for; "" if we do not know it."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        fields = _multipart_fields(body, content_type)
    elif kind in ("", "application/x-www-form-urlencoded", "text/plain"):
        fields = _urlencoded_fields(body)
    else:
        return ""
    name, _, value = _ONE_CLICK.partition("=")
    if any(field == _UNDO for field, _ in fields):
        return _UNDO
    # Some mail programs end the value with a line break, or send it twice.
    plain = [(field.strip().lower(), text.strip().lower()) for field, text in fields]
    return _ONE_CLICK if (name.lower(), value.lower()) in plain else ""


def _urlencoded_fields(body: bytes) -> list[tuple[str, str]]:
    text = body.decode("utf-8-sig", "replace").strip()
    try:
        return parse_qsl(text, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return []


def _multipart_fields(body: bytes, content_type: str) -> list[tuple[str, str]]:
    """The form's fields. RFC 8058 section 3.2 also allows this encoding."""
    head = f"Content-Type: {' '.join(content_type.split())}\r\n\r\n".encode("ascii", "replace")
    try:
        parts = BytesParser(policy=compat32).parsebytes(head + body).walk()
        fields = [
            (str(part.get_param("name", "", header="content-disposition")), part.get_payload(decode=True))
            for part, _ in zip(parts, range(_MAX_FIELDS), strict=False)
        ]
    except Exception:
        # The standard library's parser raises on some of what strangers send.
        return []
    return [(name, value.decode("utf-8", "replace")) for name, value in fields if isinstance(value, bytes)]


def _broken() -> Response:
    """The page for a broken link. In English, because the language is in the part that cannot be read."""
    return _page("en", _EN.broken, _EN.broken_text, status=404)


def _page(
    language: str, title: str, text: str, form: str = "", *, sender: str = "", status: int = 200
) -> Response:
    shown = {"title": title, "text": text, "heading": f"{title} · {sender}" if sender else title}
    line = f'<p class="sender">{escape(sender)}</p>\n' if sender else ""
    html = _PAGE.format(
        language=language, form=form, sender=line, **{name: escape(part) for name, part in shown.items()}
    )
    return HTMLResponse(html, status, _HEADERS)
