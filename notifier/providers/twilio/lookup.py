"""Searches Twilio for the message of an attempt that ended without an answer.

Messages can be listed by recipient and by the day of sending, newest first
(https://www.twilio.com/docs/messaging/api/message-resource#read-multiple-message-resources). They contain nothing
of ours but the text. So a message matches if recipient, sender and text are the same and it was created while the
attempt was in progress or shortly after.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from notifier.providers.base import LATEST_SECONDS, Receipt, Sought
from notifier.providers.outcomes import UNAVAILABLE

#: How far Twilio's clock may be behind ours.
_BEFORE = timedelta(seconds=5)
_AFTER = timedelta(seconds=LATEST_SECONDS)
#: Twilio's prefix to every text from a trial account.
_TRIAL = "Sent from your Twilio trial account - "
_PAGE_SIZE = 50
#: Maximum number of pages read for one day; we send nobody 500 messages a day.
_MAX_PAGES = 10


@dataclass(frozen=True, slots=True)
class LookupWindow:
    """When the message of an attempt may have been created."""

    opens_at: datetime
    closes_at: datetime

    @property
    def days(self) -> tuple[date, ...]:
        """The UTC days that the window touches: two near midnight."""
        return tuple(sorted({self.opens_at.date(), self.closes_at.date()}))


def window_of(sought: Sought, deadline_seconds: float) -> LookupWindow:
    """From just before the call to a minute after its end, or after its deadline if the end is unknown."""
    ended_at = sought.finished_at or sought.started_at + timedelta(seconds=deadline_seconds)
    return LookupWindow(sought.started_at - _BEFORE, ended_at + _AFTER)


async def search(client: Any, sought: Sought, window: LookupWindow) -> list[Receipt]:
    """The receipts of the matching messages, closest to the start of the attempt first.

    Raises:
        Unavailable: there were more messages than we read.
        TwilioException, OSError: raised by Twilio's client.
    """
    found: dict[str, Any] = {}
    for day in window.days:
        async for message in _pages(client, to=sought.to, date_sent=f"{day:%Y-%m-%d}"):
            found[message.sid] = message
    # A message in Twilio's queue has no date of sending yet, so no search by day finds it.
    newest = await client.messages.page_async(to=sought.to, page_size=_PAGE_SIZE)
    found |= {message.sid: message for message in newest}
    fitting = [message for message in found.values() if _fits(message, sought, window)]
    fitting.sort(key=lambda message: (abs(message.date_created - sought.started_at), message.sid))
    return [_receipt(message) for message in fitting]


async def _pages(client: Any, **query: str) -> AsyncIterator[Any]:
    page = await client.messages.page_async(**query, page_size=_PAGE_SIZE)
    for _ in range(_MAX_PAGES):
        for message in page:
            yield message
        page = await page.next_page_async()
        if page is None:
            return
    raise UNAVAILABLE.error(f"more than {_MAX_PAGES * _PAGE_SIZE} messages to this number in a day")


def _fits(message: Any, sought: Sought, window: LookupWindow) -> bool:
    return (
        message.sid not in sought.exclude
        and sought.sender in (message.from_, message.messaging_service_sid)
        and _comparable(message.body) == _comparable(sought.text)
        and window.opens_at <= message.date_created <= window.closes_at
    )


def _comparable(body: str) -> str:
    """The text for comparing: differences in outer white space and line breaks are not worth a second SMS."""
    return body.replace("\r\n", "\n").strip().removeprefix(_TRIAL)


def _receipt(message: Any) -> Receipt:
    code = f", code {message.error_code}" if message.error_code else ""
    return Receipt(message.sid, f"{message.status}{code}")
