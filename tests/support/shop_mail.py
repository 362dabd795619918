"""Tests what Django's mails become, and the pages of its admin. The example shop's own `manage.py test` runs them,
on each of its databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import MIMEPart
from email.mime.image import MIMEImage
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import django
from django.contrib.auth.models import User
from django.core.mail import EmailMessage, EmailMultiAlternatives, get_connection, send_mail, send_mass_mail
from django.db import transaction
from django.test import TestCase, override_settings

from notifier.contrib.django import send
from notifier.contrib.django.models import OutboxMessage
from notifier.domain.errors import ConfigurationError, InvalidMessage, ServiceUnavailable

FILE_ID = "01a2047b-fb2a-7da5-858e-3be3814fe3b1"
_TYPE = {"code": "attachment_type", "problem": "is not an accepted type", "fix": "Send a PDF"}
_NAME = {"code": "bad_file_name", "problem": "names no file", "fix": "Give it as filename*"}
_FAULTS = [{"parameter": "Content-Type", **_TYPE}, {"parameter": "Content-Disposition", **_NAME}]
REFUSED = {"detail": "it is not accepted", "errors": _FAULTS}


@contextmanager
def api(status: int = 201) -> Iterator[list[tuple[str, Any, bytes]]]:
    """An HTTP API that accepts files; yields the requests that it received."""
    requests: list[tuple[str, Any, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append((self.path, self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Location", "http://elsewhere.example.com/")
            self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
            self.end_headers()
            self.wfile.write(json.dumps({"id": FILE_ID} if status < 400 else REFUSED).encode())

        def do_GET(self) -> None:
            requests.append((self.path, self.headers, b""))
            self.send_response(status)
            self.end_headers()
            item = {"id": FILE_ID, "status": "delivered", "template": "order_shipped", "reference": "<b>"}
            self.wfile.write(json.dumps({"items": [item], "next": "older"}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        key = "ntf_test_key"
        with override_settings(NOTIFIER_API_URL=f"http://127.0.0.1:{server.server_port}", NOTIFIER_API_KEY=key):
            yield requests
        server.shutdown()


def written() -> list[dict[str, Any]]:
    return [json.loads(row.body) for row in OutboxMessage.objects.order_by("id")]


BACKEND = "notifier.contrib.django.mail.EmailBackend"


@override_settings(
    **({"MAILERS": {"default": {"BACKEND": BACKEND}}} if django.VERSION >= (6, 1) else {"EMAIL_BACKEND": BACKEND}),
    DEFAULT_FROM_EMAIL="Corner Shop <hello@shop.example.com>",
    NOTIFIER_SENDERS={"Support@shop.example.com": "support"},
)
class MailTests(TestCase):
    def refused(self, *fields: str, **changed: Any) -> None:
        self.refused_beside(0, *fields, **changed)

    def refused_beside(self, already: int, *fields: str, **changed: Any) -> None:
        mail = EmailMultiAlternatives(**{"subject": "Hi", "body": "Hello", "to": ["ada@example.com"], **changed})
        with self.assertRaises(InvalidMessage) as caught:
            mail.send()
        self.assertEqual(fields, tuple(fault.field for fault in caught.exception.faults))
        mail.connection = None  # which raises; Django keeps the connection
        self.assertEqual(0, mail.send(fail_silently=True))
        self.assertEqual(already, len(written()))

    def test_send_mail_writes_a_message_of_the_raw_template(self) -> None:
        sent = send_mail(
            "Hi", "Hello", None, ["Ada <ada@example.com>"], html_message="<p>Hello</p>", fail_silently=True
        )
        self.assertEqual(1, sent)
        (message,) = written()
        self.assertEqual({"subject": "Hi", "text": "Hello", "html": "<p>Hello</p>"}, message["context"])
        self.assertEqual(
            ("raw_email", "shop", "Ada <ada@example.com>"), tuple(map(message.get, ("template", "producer", "to")))
        )
        self.assertEqual({"template", "producer", "to", "context", "channel", "lane", "id"}, set(message))

    def test_each_recipient_gets_a_mail_of_its_own_and_the_count_is_of_mails(self) -> None:
        mail = EmailMessage(
            "Hi", "Hello", to=["a@example.com", "b@example.com"], cc=["Ann <A@example.com>"], bcc=["c@example.com"]
        )
        self.assertEqual(1, mail.send())
        self.assertEqual(
            ["a@example.com", "b@example.com", "c@example.com"], sorted(one["to"] for one in written())
        )
        self.assertEqual(2, send_mass_mail([("Hi", "Hello", None, ["d@example.com"])] * 2))
        self.assertEqual(0, EmailMessage("Hi", "Hello").send())

    def test_addresses_become_sender_identities(self) -> None:
        mail = EmailMessage(
            "Hi",
            "Hello",
            "Help <support@SHOP.example.com>",
            ["a@example.com"],
            reply_to=["support@shop.example.com"],
        )
        mail.send()
        (message,) = written()
        self.assertEqual(("support", "support"), (message["sender"], message["reply_to"]))
        mail.reply_to, mail.extra_headers = [], {"Reply-To": "support@shop.example.com"}
        mail.send()
        self.assertEqual("support", written()[1]["reply_to"])

    def test_a_mail_of_html_alone_gets_a_text(self) -> None:
        mail = EmailMessage("Hi", "<p>Hello <b>Ada</b></p>", to=["ada@example.com"])
        mail.content_subtype = "html"
        mail.send()
        self.assertEqual(
            {"subject": "Hi", "text": "Hello Ada", "html": "<p>Hello <b>Ada</b></p>"}, written()[0]["context"]
        )

        send_mail("Hi", "", None, ["ada@example.com"], html_message="<p>Hello <b>Ada</b></p>")
        self.assertEqual(written()[0]["context"], written()[1]["context"])
        self.refused_beside(2, "body", body=" ", alternatives=[("<img>", "text/html")])

    def test_what_the_service_could_not_render_is_refused(self) -> None:
        self.refused("subject", subject="x" * 999)
        self.refused("subject", subject="a\x07b")
        self.refused("alternatives.0", alternatives=[("x" * (512 * 1024 + 1), "text/html")])
        self.assertEqual(1, send_mail(" " + "x" * 998, "Hello", None, ["ada@example.com"]))

    def test_half_a_character_is_refused_by_the_name_of_its_field(self) -> None:
        half = "x\ud800"
        for name in ("subject", "body", "from_email"):
            self.refused(name, **{name: half})
        for name in ("to", "cc", "bcc", "reply_to"):
            self.refused(
                f"{name}.1", **{name: [None, half]} if name == "reply_to" else {name: ["ada@example.com", half]}
            )
        for headers in ({"Reply-To": half}, {half: "x"}):
            self.refused("headers", headers=headers)
        self.refused("alternatives.0", alternatives=[(half, "text/html")])
        for attachment in ((half, "a", None), ("a", half, None), ("a", "a", f"text/{half}")):
            self.refused("attachments.0", attachments=[attachment])

    def test_what_a_notification_cannot_carry_is_refused_and_named(self) -> None:
        self.refused("from_email", from_email="ceo@shop.example.com")
        self.refused("reply_to", reply_to=["customer@example.org"])
        self.refused("headers.X-Campaign", headers={"X-Campaign": "spring"})
        self.refused("body", body="")
        self.refused("attachments.0", attachments=[MIMEImage(b"x", "png")])
        self.refused("alternatives.0", alternatives=[("BEGIN:VCALENDAR", "text/calendar")])
        self.refused("alternatives.1", alternatives=[("<p>a</p>", "text/html")] * 2)
        self.refused("body", body="a\0b", cc=["b@example.com"])
        self.refused("body", "to.0", body=" ", to=["a@b@c"])
        self.refused("body", body="", alternatives=[("<a" * 600, "text/html")])
        self.refused("to.0", to=["x" * 320 + " <a@example.com>"])

    def test_everything_that_is_refused_is_named_at_once(self) -> None:
        mail = EmailMessage(
            5,
            "",
            "ceo@shop.example.com",
            ["x", "a@example.com", 5],
            bcc=["b@example.com", "z"],
            cc=["y"],
            headers={"X": "1"},
            reply_to=["q"],
        )
        for name in ("a.exe", "b.exe", "c" * 256):
            mail.attach(name, b"MZ", "application/x-msdownload")
        found = "subject to.2 attachments.2 from_email reply_to headers.X body to.0 cc.0 bcc.1 "
        found += "attachments.0 attachments.1"
        with api(415), self.assertRaises(InvalidMessage) as caught:
            mail.send()
        # The service finds two faults in each file.
        self.assertEqual(found.split(), list(dict.fromkeys(fault.field for fault in caught.exception.faults)))
        # Without the service: everything except what only the service knows.
        with self.assertRaises(InvalidMessage) as caught:
            mail.send()
        self.assertEqual(found.split()[:-2], [fault.field for fault in caught.exception.faults])

    def test_of_several_mails_a_fault_names_the_one_that_is_wrong(self) -> None:
        nobody: tuple[str, str, None, list[str]] = ("Hi", "Hello", None, [])
        with self.assertRaises(InvalidMessage) as caught:
            send_mass_mail([nobody, ("Hi", "Hello", None, ["a@example.com", "b@example.com", "nope"])])
        self.assertEqual(["1.to.2"], [fault.field for fault in caught.exception.faults])

    def test_a_type_that_no_header_can_hold_is_refused_before_anything_is_sent(self) -> None:
        with api() as requests:
            for kind in ("application/pdf\r\nX: y", "text/plain; charset=ü", " text/plain", "a/" + "x" * 999):
                self.refused("attachments.0", attachments=[("a.pdf", b"%PDF-1.4", kind)])
        self.assertEqual([], requests)

    def test_values_of_a_wrong_kind_are_refused_by_the_name_of_their_field(self) -> None:
        self.refused("subject", subject=5)
        self.refused("body", body=b"Hello")
        self.refused("to.0", to=[5])
        self.refused("headers", headers={5: "x"})
        self.refused("alternatives.0", alternatives=[(b"\xff", "text/html")])
        self.refused("alternatives.0", alternatives=[(None, "text/html")])
        odd = [("a.txt", None, None), ("b.txt", 5, None), (5, "b", None), ("c", "c", 5), ("d",), None]
        mail = EmailMessage("Hi", "Hello", to=["ada@example.com"])
        for attachments, fields in (
            (odd, [f"attachments.{position}" for position in range(len(odd))]),
            (
                [("mail.eml", mail, "message/rfc822"), ("part", MIMEPart(), None)],
                ["attachments.0", "attachments.1"],
            ),
            ([("a.txt", "a", None)] * 11, ["attachments"]),
            ([("a.bin", b"a" * (6 * 1024 * 1024), None)] * 2, ["attachments"]),
        ):
            mail.attachments = attachments  # which Django does not check
            with self.assertRaises(InvalidMessage) as caught:
                mail.send()
            self.assertEqual(fields, [fault.field for fault in caught.exception.faults])
        mail.attachments, mail.to = [], "ada@example.com"
        with self.assertRaises(InvalidMessage) as caught:
            get_connection().send_messages([mail])
        self.assertEqual(["to"], [fault.field for fault in caught.exception.faults])
        self.assertEqual([], written())

    def test_what_is_left_out_silently_is_in_the_log_without_its_values(self) -> None:
        with self.assertLogs("notifier.contrib.django.mail") as logs:
            self.assertEqual(0, send_mail("Hi", "", None, ["ada@example.com"], fail_silently=True))
            self.assertEqual(0, send_mail("a\nb", "Hello", None, ["ada@example.com"], fail_silently=True))
        self.assertIn("body: is empty", logs.output[0])
        self.assertTrue(logs.output[1].endswith(": BadHeaderError") or logs.output[1].endswith(": ValueError"))
        self.assertNotIn("ada", "".join(logs.output))

    def test_a_line_break_begins_no_header(self) -> None:
        for changed in ({"subject": "Hi\nBcc: b@example.com"}, {"to": ["a@example.com\nBcc: b@example.com"]}):
            mail = EmailMessage(**{"subject": "Hi", "body": "Hello", "to": ["a@example.com"], **changed})
            with self.assertRaises(ValueError):
                mail.send()
            mail.connection = None
            self.assertEqual(0, mail.send(fail_silently=True))
        self.assertEqual([], written())

    def test_one_wrong_mail_keeps_the_others_back_unless_it_may_fail_silently(self) -> None:
        mails = [("Hi", "Hello", None, ["a@example.com"]), ("Hi", "", None, ["b@example.com"])]
        with self.assertRaises(InvalidMessage):
            send_mass_mail(mails)
        self.assertEqual([], written())
        self.assertEqual(1, send_mass_mail(mails, fail_silently=True))

    def test_a_rollback_sends_nothing(self) -> None:
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            send_mail("Hi", "Hello", None, ["a@example.com"])
            raise ZeroDivisionError
        self.assertEqual([], written())

    def test_files_are_uploaded_and_named_in_their_order(self) -> None:
        mail = EmailMessage("Hi", "Hello", to=["a@example.com", "b@example.com"])
        mail.attach("Rechnung für Zoë.pdf", b"%PDF", "application/pdf")
        mail.attach("notes.txt", "Grüße")
        mail.attachments.append(("notes.txt", b"\xff", "text/plain"))
        with api() as requests:
            mail.send()
        self.assertEqual([[FILE_ID] * 3] * 2, [message["attachments"] for message in written()])
        (path, headers, body), (_, second, text), (_, third, binary) = requests
        self.assertEqual(
            ("/v1/attachments", "Bearer ntf_test_key", b"%PDF"), (path, headers["Authorization"], body)
        )
        self.assertEqual(
            "attachment; filename*=UTF-8''Rechnung%20f%C3%BCr%20Zo%C3%AB.pdf", headers["Content-Disposition"]
        )
        self.assertEqual(("text/plain; charset=utf-8", "Grüße"), (second["Content-Type"], text.decode()))
        self.assertEqual(("text/plain", b"\xff"), (third["Content-Type"], binary))

    def test_no_file_is_left_out_because_it_cannot_be_uploaded(self) -> None:
        mail = EmailMessage("Hi", "Hello", to=["a@example.com"], attachments=[("a.txt", "a", "text/plain")])
        with self.assertRaisesMessage(ConfigurationError, "NOTIFIER_API_URL"):
            mail.send()
        with api(503), self.assertRaises(ServiceUnavailable):
            mail.send()
        with api(415) as requests, self.assertRaises(InvalidMessage) as refused:
            mail.send()
        of_type, of_name = refused.exception.faults
        self.assertEqual("attachments.0: is not an accepted type. Send a PDF.", str(of_type))
        self.assertIn("attachments.0: has a file name", str(of_name))
        self.assertNotIn("filename*", str(of_name))
        # A redirect would send the key elsewhere.
        with api(307) as requests, self.assertRaisesMessage(ConfigurationError, "HTTP 307"):
            mail.send()
        self.assertEqual(1, len(requests))
        self.assertEqual([], written())


class AdminTests(TestCase):
    PAGE = "/admin/notifier/outboxmessage/notifications/"

    def sign_in(self, **rights: bool) -> User:
        user = User.objects.create(username="ada", email="ada@example.com", is_staff=True, **rights)
        self.client.force_login(user)
        return user

    def test_a_users_notifications_are_listed_and_the_address_is_in_no_path(self) -> None:
        user = self.sign_in(is_superuser=True)
        with api(200) as requests:
            page = self.client.get(self.PAGE, {"user": user.pk})
            older = self.client.post(self.PAGE, {"recipient": "ada@example.com", "after": "older"})
        self.assertContains(page, "<td>delivered</td>", html=True)
        self.assertContains(page, "&lt;b&gt;")
        self.assertEqual(200, older.status_code)
        self.assertEqual(
            [404, 404], [self.client.get(self.PAGE, {"user": key}).status_code for key in ("0", "ada")]
        )
        self.assertEqual(
            [
                "/v1/notifications?recipient=ada%40example.com",
                "/v1/notifications?recipient=ada%40example.com&after=older",
            ],
            [path for path, _, _ in requests],
        )

    def test_a_service_that_is_away_is_said_to_be(self) -> None:
        self.sign_in(is_superuser=True)
        with api(503):
            self.assertContains(self.client.post(self.PAGE, {"recipient": "ada@example.com"}), "try again later")

    def test_waiting_messages_are_shown_without_their_content_and_to_nobody_else(self) -> None:
        send("order_shipped", to="hidden@example.com")
        self.sign_in(is_superuser=True)
        shown = self.client.get("/admin/notifier/outboxmessage/")
        self.assertContains(shown, "Notifications of an address")
        one = self.client.get(f"/admin/notifier/outboxmessage/{OutboxMessage.objects.get().pk}/change/")
        self.assertEqual(200, one.status_code)
        self.assertNotIn(b"hidden@", shown.content + one.content)
        User.objects.update(is_superuser=False)
        self.assertEqual(
            [403, 403],
            [self.client.get(path).status_code for path in ("/admin/notifier/outboxmessage/", self.PAGE)],
        )
