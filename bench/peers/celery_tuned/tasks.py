"""The same task as an engineer writes it who has measured: threads, connections that are reused, short statements.

It is run as `celery -A bench.peers.celery_tuned.tasks worker --pool threads`, one worker for each core.
"""

from __future__ import annotations

import contextlib
import os
import smtplib
import threading
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

from celery import Celery
from jinja2 import Environment, FileSystemLoader, select_autoescape
from sqlalchemy import create_engine, insert, update

from bench.mails import SENDER, TEMPLATES
from bench.peers.model import Mail

THREADS = int(os.environ.get("BENCH_THREADS", "8"))

app = Celery("celery_tuned", broker=os.environ["BENCH_BROKER_URL"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_default_queue="celery_tuned",
    # Enough in hand that no thread waits for the broker.
    worker_prefetch_multiplier=8,
    worker_send_task_events=False,
    worker_disable_rate_limits=True,
)
# One connection for each thread, never opened anew.
engine = create_engine(
    os.environ["BENCH_DATABASE_URL"], pool_size=THREADS, max_overflow=0, pool_reset_on_return=None
)
_environment = Environment(
    loader=FileSystemLoader(TEMPLATES / "email"), autoescape=select_autoescape(["html"]), trim_blocks=True
)
_own = threading.local()
#: A connection is closed after so many mails, as relays want it.
_MAILS_PER_CONNECTION = 100


def _template(name: str) -> Any:
    """Compiled once; the look at the file's date on each use is saved, too."""
    found = _compiled.get(name)
    if found is None:
        found = _compiled[name] = _environment.get_template(name)
    return found


_compiled: dict[str, Any] = {}


def _connection() -> smtplib.SMTP:
    """This thread's own."""
    smtp: smtplib.SMTP | None = getattr(_own, "smtp", None)
    if smtp is not None and _own.mails >= _MAILS_PER_CONNECTION:
        with contextlib.suppress(smtplib.SMTPException, OSError):
            smtp.quit()
        smtp = None
    if smtp is None:
        smtp = smtplib.SMTP("127.0.0.1", int(os.environ["BENCH_SMTP_PORT"]), timeout=30)
        _own.smtp, _own.mails = smtp, 0
    _own.mails += 1
    return smtp


def _send(message: EmailMessage) -> None:
    try:
        _connection().send_message(message)
    except smtplib.SMTPServerDisconnected:
        # It was idle for too long; a new one will do.
        _own.smtp = None
        _connection().send_message(message)


@app.task(name="send_mail")  # type: ignore[untyped-decorator]
def send_mail(recipient: str, template: str, context: dict[str, Any]) -> None:
    """Send one mail and record it."""
    row = {"recipient": recipient, "template": template, "context": context}
    with engine.begin() as connection:
        (number,) = connection.execute(
            insert(Mail).values(**row, status="sending", created_at=datetime.now(UTC)).returning(Mail.id)
        ).one()

    message = EmailMessage()
    message["From"] = SENDER
    message["To"] = recipient
    message["Subject"] = _template(f"{template}/subject.txt").render(context).strip()
    message.set_content(_template(f"{template}/body.txt").render(context))
    message.add_alternative(_template(f"{template}/body.html").render(context), subtype="html")
    _send(message)

    with engine.begin() as connection:
        connection.execute(update(Mail).where(Mail.id == number).values(status="sent", sent_at=datetime.now(UTC)))
