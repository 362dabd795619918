"""The view in the guides: FastAPI checks the body, Celery's `delay()` queues it.

It is a `def`, not an `async def`, because `delay()` waits for the broker and would hold up every other request on
the event loop.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from bench.peers.celery_guide.tasks import send_mail

app = FastAPI()


class Mail(BaseModel):
    """The body of a request."""

    to: str
    template: str
    context: dict[str, Any]


@app.post("/mails", status_code=202)
def send(mail: Mail) -> dict[str, str]:
    """Queue one mail."""
    return {"id": send_mail.delay(mail.to, mail.template, mail.context).id}
