"""The Celery task that teams write first: one task per mail, with a row before, a new connection, and a row after.

It runs as `celery -A bench.peers.celery_naive.tasks worker`, with Celery's default pool: processes.
"""

from __future__ import annotations

import os
import smtplib
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

from celery import Celery
from jinja2 import Environment, FileSystemLoader, select_autoescape
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from bench.mails import SENDER, TEMPLATES
from bench.peers.model import Mail

app = Celery("celery_naive", broker=os.environ["BENCH_BROKER_URL"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_default_queue="celery_naive",
    worker_prefetch_multiplier=4,
)
engine = create_engine(os.environ["BENCH_DATABASE_URL"])
templates = Environment(
    loader=FileSystemLoader(TEMPLATES / "email"), autoescape=select_autoescape(["html"]), trim_blocks=True
)


@app.task(name="send_mail")  # type: ignore[untyped-decorator]
def send_mail(recipient: str, template: str, context: dict[str, Any]) -> None:
    """Send one mail and record it."""
    with Session(engine) as session:
        mail = Mail(
            recipient=recipient, template=template, context=context, status="sending", created_at=datetime.now(UTC)
        )
        session.add(mail)
        session.commit()

        message = EmailMessage()
        message["From"] = SENDER
        message["To"] = recipient
        message["Subject"] = templates.get_template(f"{template}/subject.txt").render(context).strip()
        message.set_content(templates.get_template(f"{template}/body.txt").render(context))
        message.add_alternative(templates.get_template(f"{template}/body.html").render(context), subtype="html")
        with smtplib.SMTP("127.0.0.1", int(os.environ["BENCH_SMTP_PORT"]), timeout=30) as smtp:
            smtp.send_message(message)

        mail.status = "sent"
        mail.sent_at = datetime.now(UTC)
        session.commit()
