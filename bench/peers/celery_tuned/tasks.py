"""The same task, written by an engineer who has measured: threads, reused connections, one message object.

It runs as `celery -A bench.peers.celery_tuned.tasks worker`; README.md says with which pool, and what each step
brought.
"""

from __future__ import annotations

import contextlib
import os
import smtplib
import threading
from datetime import UTC, datetime
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import compat32
from email.utils import parseaddr
from typing import Any

import psycopg
from celery import Celery
from jinja2 import Environment, FileSystemLoader, select_autoescape
from psycopg.types.json import Json
from sqlalchemy import create_engine

from bench.mails import SENDER, TEMPLATES
from bench.peers.model import Mail

__all__ = ["Mail", "app", "engine", "send_mail"]

app = Celery("celery_tuned", broker=os.environ["BENCH_BROKER_URL"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_default_queue="celery_tuned",
    # Enough in hand that no thread waits for the broker.
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "8")),
    worker_send_task_events=False,
    worker_disable_rate_limits=True,
)
#: Only creates the table; a mail's two statements go directly to psycopg.
engine = create_engine(os.environ["BENCH_DATABASE_URL"])
_DATABASE_URL = os.environ["BENCH_DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://", 1)
_INSERT = """
INSERT INTO mails (recipient, template, context, status, created_at)
VALUES (%s, %s, %s, 'sending', %s) RETURNING id
"""
_UPDATE = "UPDATE mails SET status = 'sent', sent_at = %s WHERE id = %s"

_environment = Environment(
    loader=FileSystemLoader(TEMPLATES / "email"), autoescape=select_autoescape(["html"]), trim_blocks=True
)
#: What each thread keeps and reuses: connections and the message.
_own = threading.local()
#: A connection is closed after this many mails, as relays require.
_MAILS_PER_CONNECTION = 100
_RETURN_PATH = parseaddr(SENDER)[1]
#: smtplib sends bytes unchanged.
_LINES = compat32.clone(linesep="\r\n")


def _template(name: str) -> Any:
    """Compiled once, which also saves checking the file's date at each use."""
    found = _compiled.get(name)
    if found is None:
        found = _compiled[name] = _environment.get_template(name)
    return found


_compiled: dict[str, Any] = {}


def _database() -> psycopg.Connection[Any]:
    """Each statement is a transaction of its own: no BEGIN and no COMMIT go to the server."""
    found: psycopg.Connection[Any] | None = getattr(_own, "database", None)
    if found is None or found.closed:
        found = _own.database = psycopg.connect(_DATABASE_URL, autocommit=True)
    return found


def _connection() -> smtplib.SMTP:
    smtp: smtplib.SMTP | None = getattr(_own, "smtp", None)
    if smtp is not None and _own.mails >= _MAILS_PER_CONNECTION:
        with contextlib.suppress(smtplib.SMTPException, OSError):
            smtp.quit()
        smtp = None
    if smtp is None:
        smtp = smtplib.SMTP("127.0.0.1", int(os.environ["BENCH_SMTP_PORT"]), timeout=30)
        smtp.ehlo()
        if not smtp.has_extn("8bitmime"):
            raise smtplib.SMTPNotSupportedError("the texts go out as they are, which takes 8BITMIME")
        _own.smtp, _own.mails = smtp, 0
    _own.mails += 1
    return smtp


class _Message:
    """Created once; for each mail two headers and two bodies change.

    It uses the older classes of `email`, because `EmailMessage` parses each header that it is given.
    """

    def __init__(self) -> None:
        self._message = MIMEMultipart("alternative")
        self._message["From"], self._message["To"], self._message["Subject"] = SENDER, "", ""
        self._parts = [MIMEText("", kind, "utf-8") for kind in ("plain", "html")]
        for part in self._parts:
            part.replace_header("Content-Transfer-Encoding", "8bit")
            self._message.attach(part)

    def as_bytes(self, recipient: str, subject: str, *texts: str) -> bytes:
        """The message with these texts, plain text before HTML."""
        self._message.replace_header("To", recipient)
        self._message.replace_header("Subject", subject)
        for part, text in zip(self._parts, texts, strict=True):
            # So that the generator writes the bytes unchanged.
            part.set_payload(text.encode().decode("ascii", "surrogateescape"))
        return self._message.as_bytes(policy=_LINES)


def _send(recipient: str, template: str, context: dict[str, Any]) -> None:
    message: _Message | None = getattr(_own, "message", None)
    if message is None:
        message = _own.message = _Message()
    names = ("subject.txt", "body.txt", "body.html")
    subject, *texts = (_template(f"{template}/{name}").render(context) for name in names)
    content = message.as_bytes(recipient, subject.strip(), *texts)
    try:
        _connection().sendmail(_RETURN_PATH, [recipient], content, ["BODY=8BITMIME"])
    except smtplib.SMTPServerDisconnected:
        # It was idle for too long; a new one will do.
        _own.smtp = None
        _connection().sendmail(_RETURN_PATH, [recipient], content, ["BODY=8BITMIME"])


@app.task(name="send_mail")  # type: ignore[untyped-decorator]
def send_mail(recipient: str, template: str, context: dict[str, Any]) -> None:
    """Send one mail and record it."""
    database = _database()
    row = [recipient, template, Json(context), datetime.now(UTC)]
    found = database.execute(_INSERT, row).fetchone()
    assert found is not None
    _send(recipient, template, context)
    database.execute(_UPDATE, [datetime.now(UTC), found[0]])
