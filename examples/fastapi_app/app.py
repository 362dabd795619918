"""A FastAPI app that sends login codes over HTTP, and tells its page whether they were sent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import randbelow
from typing import Annotated
from uuid import UUID

from fastapi import FastAPI, Form, HTTPException

from notifier import AsyncClient, InvalidMessage


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # One client for the process, because it keeps its connections.
    async with AsyncClient() as app.state.notifier:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/logins", status_code=202)
async def log_in(number: Annotated[str, Form()]) -> dict[str, str]:
    """Answers when the code is in the service's record; nobody waits for the SMS."""
    context = {"code": f"{randbelow(10**6):06}", "valid_minutes": 10}
    try:
        handle = await app.state.notifier.send("login_code", to=number, lane="urgent", context=context)
    except InvalidMessage as error:
        raise HTTPException(422, [fault.as_dict() for fault in error.faults]) from None
    return {"code_sent": f"/logins/{handle.id}"}


@app.get("/logins/{notification_id}")
async def code_sent(notification_id: UUID) -> dict[str, bool]:
    """For a page that asks until the code was sent."""
    status = await app.state.notifier.status(notification_id)
    if status is None:
        raise HTTPException(404)
    return {"ready": status.is_ready, "successful": status.is_successful}
