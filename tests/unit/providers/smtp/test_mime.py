"""What we compose, read back by the standard library's parser."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import replace
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from typing import cast
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier.providers.base import Attachment, Outgoing
from notifier.providers.mail.address import Mailbox, parse_mailbox
from notifier.providers.smtp.headers import clean
from notifier.providers.smtp.mime import Correspondents, Mail, canonical, compose

NOW = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
ID = UUID("0198c5a0-7b1e-7c3a-9d53-0242ac120002")
SHOP = Mailbox("hello", "shop.example.com", "Corner Shop")
ZOE = Mailbox("zoe", "example.com")

#: Everything that a template and its data may bring: any script, controls, line ends, header look-alikes.
WORDS = st.text(max_size=200)
NASTY = st.lists(
    st.sampled_from(
        ["\r\n", "\n", "\r", "\x00", "\u2028", "\t", " ", "  ", ".", "--", "=_", "From ", "é", "王", "🎉",
         '"', "\\", "<", ">", ",", "(c)", "Bcc: eve@example.com", "=?utf-8?q?x?=", "x" * 80, "y" * 1200]
    ),
    max_size=30,
).map("".join)  # fmt: skip
TEXT = WORDS | NASTY


def make_outgoing(
    *,
    subject: str = "Hello",
    text: str = "Hello\n",
    html: str | None = None,
    locale: str = "",
    attempt: int = 1,
    attachments: tuple[Attachment, ...] = (),
) -> Outgoing:
    return Outgoing(
        ID,
        attempt,
        "unread",
        "unread",
        text,
        subject=subject,
        html=html,
        locale=locale,
        attachments=attachments,
    )


def make_mail(
    outgoing: Outgoing, *, to: Mailbox = ZOE, reply_to: Mailbox | None = None, takes_8bit: bool = False
) -> Mail:
    who = Correspondents(SHOP, to, reply_to)
    return compose(outgoing, who, domain="shop.example.com", date=NOW, takes_8bit=takes_8bit)


def parsed(mail: Mail) -> EmailMessage:
    return email.message_from_bytes(mail.content, policy=email.policy.default)


def assert_flawless(mail: Mail) -> None:
    message = parsed(mail)
    for part in message.walk():
        assert part.defects == []
        for header in part.values():
            assert header.defects == ()
    lines = mail.content.split(b"\r\n")
    assert lines[-1] == b""
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert max(map(len, lines)) <= 998


def text_of(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return cast("str", part.get_content())


@given(subject=TEXT, text=TEXT, html=st.none() | TEXT, takes_8bit=st.booleans())
@example(subject="", text="", html="", takes_8bit=False)
@example(subject="a\r\nBcc: eve@example.com", text=".\r\n..\r\n.\r\n", html=None, takes_8bit=False)
@example(subject="x " * 300, text="é" * 3000, html="x" * 3000, takes_8bit=True)
@example(subject="Ünï " * 100, text="--=_0198c5a07b1e7c3a9d530242ac120002--\n", html="=_", takes_8bit=True)
@example(subject="", text="é--=_0198c5a07b1e7c3a9d530242ac120002--\n", html="é", takes_8bit=True)
def test_a_composed_mail_reads_back_as_it_was_meant(
    subject: str, text: str, html: str | None, takes_8bit: bool
) -> None:
    mail = make_mail(make_outgoing(subject=subject, text=text, html=html), takes_8bit=takes_8bit)
    message = parsed(mail)
    assert_flawless(mail)
    assert message["subject"] == clean(subject)
    assert text_of(message, "plain") == canonical(text)
    assert html is None or text_of(message, "html") == canonical(html)
    assert message["bcc"] is None
    assert mail.needs_8bit is (not mail.content.isascii())
    assert takes_8bit or not mail.needs_8bit
    assert len(message.keys()) == 8 + (html is None or mail.needs_8bit)


@given(name=TEXT)
def test_a_display_name_reads_back_as_it_was_meant(name: str) -> None:
    name = " ".join(clean(name).split())
    mail = make_mail(make_outgoing(), to=Mailbox("zoe", "example.com", name))
    assert_flawless(mail)
    (address,) = parsed(mail)["to"].addresses
    assert address.addr_spec == "zoe@example.com"
    # The parser of Python 3.11 keeps the space between two encoded words of a phrase, which RFC 2047 section 6.2
    # ignores; the older one below does not.
    assert address.display_name.replace(" ", "") == name.replace(" ", "")
    older = email.message_from_bytes(mail.content, policy=email.policy.compat32)
    written = parseaddr(re.sub(r"\r\n\s", " ", older["to"]))[0]
    assert str(make_header(decode_header(written))) == name


@given(name=TEXT)
def test_a_display_name_can_start_no_header_when_it_came_as_text(name: str) -> None:
    try:
        to = parse_mailbox(f"{name} <zoe@example.com>")
    except ValueError:
        return
    mail = make_mail(make_outgoing(), to=to)
    assert_flawless(mail)
    assert set(map(str.lower, parsed(mail).keys())) == {
        "date", "from", "to", "subject", "message-id", "auto-submitted", "mime-version", "content-type",
        "content-transfer-encoding",
    }  # fmt: skip


@given(subject=WORDS, name=WORDS)
def test_header_lines_stay_within_78_characters_when_words_allow_it(subject: str, name: str) -> None:
    mail = make_mail(make_outgoing(subject=subject), to=Mailbox("zoe", "example.com", clean(name)))
    header = mail.content.partition(b"\r\n\r\n")[0]
    assert max(map(len, header.split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Your code is 4711.\n", "7bit"),
        ("", "7bit"),
        ("Votre commande est expédiée.\n", "quoted-printable"),
        ("您的订单已发货。\n", "base64"),
        ("x" * 998, "7bit"),
        ("x" * 999, "quoted-printable"),
        ("trailing space \n", "quoted-printable"),
        ("a\x00b", "quoted-printable"),
    ],
)
def test_the_body_encoding_is_the_shortest_that_is_safe(text: str, encoding: str) -> None:
    mail = make_mail(make_outgoing(text=text))
    assert parsed(mail)["content-transfer-encoding"] == encoding
    assert text_of(parsed(mail), "plain") == canonical(text)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Your code is 4711.\n", "7bit"),
        ("Votre commande est expédiée.\n", "8bit"),
        ("您的订单已发货。\n", "8bit"),
        ("é" * 499, "8bit"),
        ("é" * 500, "base64"),
        ("é" + "x" * 997, "quoted-printable"),
        ("é, then a space \n", "quoted-printable"),
        ("=_ is not é, whatever it is\n", "quoted-printable"),
        ("a\x00bé-----------\n", "quoted-printable"),
    ],
)
def test_a_server_that_takes_eight_bits_gets_text_as_it_is_where_that_is_safe(text: str, encoding: str) -> None:
    mail = make_mail(make_outgoing(text=text), takes_8bit=True)
    assert parsed(mail)["content-transfer-encoding"] == encoding
    assert text_of(parsed(mail), "plain") == canonical(text)


def test_what_is_around_a_part_of_eight_bits_says_so() -> None:
    file = Attachment("a.txt", "text/plain", b"a")
    outgoing = make_outgoing(html="<p>é</p>", attachments=(file,))
    mail = make_mail(outgoing, takes_8bit=True)
    assert_flawless(mail)
    encodings = [part["content-transfer-encoding"] for part in parsed(mail).walk()]
    assert encodings == ["8bit", "8bit", "7bit", "8bit", "base64"]


def test_a_mail_carries_the_headers_that_machines_need() -> None:
    reply_to = parse_mailbox("Aide <aide@shop.example.com>")
    message = parsed(make_mail(make_outgoing(locale="fr-CA"), reply_to=reply_to))
    assert message["message-id"] == f"<{ID}@shop.example.com>"
    assert message["date"].datetime == NOW
    assert message["auto-submitted"] == "auto-generated"
    assert message["content-language"] == "fr-CA"
    assert message["reply-to"].addresses[0].addr_spec == "aide@shop.example.com"
    assert message["from"].addresses[0].display_name == "Corner Shop"


def test_a_second_attempt_gives_the_same_bytes() -> None:
    first, second = (make_mail(make_outgoing(html="<p>Hi</p>", attempt=attempt)) for attempt in (1, 2))
    assert first == second


def test_html_comes_after_text_in_one_alternative() -> None:
    message = parsed(make_mail(make_outgoing(html="<p>Bonjour Zoé</p>")))
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    mail = make_mail(make_outgoing(subject="a\ud800b", text="a\ud800b"))
    assert parsed(mail)["subject"] == "a b"
    assert text_of(parsed(mail), "plain") == "a?b\r\n"


def test_a_locale_that_is_none_is_left_out() -> None:
    # "und": nobody knows the language, as of a mail that its producer wrote.
    for locale in ("fr\r\nBcc: eve@example.com", "und"):
        assert parsed(make_mail(make_outgoing(locale=locale)))["content-language"] is None


def test_a_non_ascii_local_part_is_written_as_utf_8_and_says_so() -> None:
    mail = make_mail(make_outgoing(), to=Mailbox("zoé", "example.com"))
    assert mail.needs_smtputf8
    assert "To: zoé@example.com\r\n".encode() in mail.content


def test_long_ascii_subjects_are_folded_and_not_encoded() -> None:
    subject = "Your order 4711 from Corner Shop has been shipped and will arrive on Tuesday before noon"
    mail = make_mail(make_outgoing(subject=subject))
    assert b"=?" not in mail.content
    assert parsed(mail)["subject"] == subject


def test_a_return_path_is_the_envelope_s_and_a_link_is_two_headers() -> None:
    url, path = "https://notify.example.com/u/" + "x" * 90, "bounces+token@example.com"
    mail = make_mail(replace(make_outgoing(), return_path=path, unsubscribe_url=url))
    message = parsed(mail)
    assert (mail.mail_from, message["From"]) == (path, "Corner Shop <hello@shop.example.com>")
    assert (message["List-Unsubscribe"], message["List-Unsubscribe-Post"]) == (
        f"<{url}>",
        "List-Unsubscribe=One-Click",
    )
    assert_flawless(mail)
    without = make_mail(make_outgoing())
    assert without.mail_from == SHOP.address
    assert b"List-Unsubscribe" not in without.content


#: As `operations.attachments` lets them pass: one printable line, not of white space at its ends.
FILE_NAMES = (
    st.text(st.characters(codec="utf-8", exclude_characters='/\\:*?"<>|'), min_size=1, max_size=120)
    | st.text("aé王🎉 %'();=.,", min_size=1, max_size=120)
).filter(lambda name: name.isprintable() and name.strip(" .") == name)


@given(name=FILE_NAMES, content=st.binary(min_size=1, max_size=3000), html=st.none() | TEXT)
@example(name="invoice.pdf", content=b"--=_m0198c5a07b1e7c3a9d530242ac120002--\r\n", html="<p>Hi</p>")
@example(name="=?utf-8?q?x?=.pdf", content=b"\r\n.\r\n" * 50, html=None)
@example(name="x" * 200, content=b"\x00", html=None)
@example(name="Zoé's 100 % (final).csv", content=b"a", html=None)
@example(name="发" * 66, content=b"a" * 57, html=None)
def test_a_file_reads_back_with_its_name_and_every_byte(name: str, content: bytes, html: str | None) -> None:
    files = (
        Attachment(name, "application/pdf", content),
        Attachment("terms.csv", "text/csv; charset=utf-8", b"a;b"),
    )
    mail = make_mail(make_outgoing(html=html, attachments=files))
    message = parsed(mail)
    assert_flawless(mail)
    assert message.get_content_type() == "multipart/mixed"
    first, second = message.iter_attachments()
    assert (first.get_filename(), first.get_content()) == (name, content)
    assert first.get_content_disposition() == "attachment"
    assert (second.get_filename(), second.get_content_type(), second.get_content()) == (
        "terms.csv",
        "text/csv",
        "a;b",
    )
    assert text_of(message, "plain") == "Hello\r\n"
    assert html is None or text_of(message, "html") == canonical(html)
    assert html is not None or max(map(len, mail.content.split(b"\r\n"))) <= 78


def test_without_files_a_mail_is_what_it_was() -> None:
    mail = make_mail(make_outgoing(html="<p>Hi</p>"))
    assert b"multipart/mixed" not in mail.content
    assert parsed(mail).get_content_type() == "multipart/alternative"


def test_two_attempts_with_files_are_the_same_bytes() -> None:
    files = (Attachment("a.pdf", "application/pdf", b"%PDF" * 400),)
    first, second = (make_mail(make_outgoing(attachments=files, attempt=attempt)) for attempt in (1, 2))
    assert first == second
