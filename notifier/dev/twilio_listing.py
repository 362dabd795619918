"""The list of messages as Twilio's API returns it: filtered, newest first, in pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from aiohttp import web

from notifier.dev.twilio_messages import SmsMessage

_PAGE_SIZE = 50


def listing(request: web.Request, messages: Sequence[SmsMessage]) -> dict[str, Any]:
    """The page that the query asks for. `messages` are in the order in which they were made."""
    found = [message.as_json() for message in reversed(messages) if _is_asked_for(message, request.query)]
    size, page = int(request.query.get("PageSize", _PAGE_SIZE)), int(request.query.get("Page", 0))
    first, last = page * size, (page + 1) * size
    here = found[first:last]

    def uri(number: int) -> str:
        return str(request.rel_url.update_query({"Page": str(number)}))

    return {
        "messages": here,
        "page": page,
        "page_size": size,
        "start": first,
        "end": max(first, first + len(here) - 1),
        "first_page_uri": uri(0),
        "next_page_uri": uri(page + 1) if len(found) > last else None,
        "previous_page_uri": uri(page - 1) if page else None,
        "uri": str(request.rel_url),
    }


def _is_asked_for(message: SmsMessage, query: Mapping[str, str]) -> bool:
    conditions: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("To", lambda value: message.to == value),
        ("From", lambda value: message.sender == value),
        ("DateSent", lambda value: _is_sent(message, lambda day: day == date.fromisoformat(value[:10]))),
        ("DateSent>", lambda value: _is_sent(message, lambda day: day >= date.fromisoformat(value[:10]))),
        ("DateSent<", lambda value: _is_sent(message, lambda day: day <= date.fromisoformat(value[:10]))),
    )
    return all(holds(query[name]) for name, holds in conditions if name in query)


def _is_sent(message: SmsMessage, holds: Callable[[date], bool]) -> bool:
    """Whether it matches by date of sending. A waiting message has no such date, so no filter by date finds it."""
    return message.sent_at is not None and holds(message.sent_at.date())
