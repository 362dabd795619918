"""The list of messages, as Twilio's API answers it: filtered, newest first, in pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from aiohttp import web

from notifier.dev.twilio_messages import SmsMessage

_PAGE_SIZE = 50


def listing(request: web.Request, messages: Sequence[SmsMessage]) -> dict[str, Any]:
    """The page that the query asks for, of `messages`, which are in the order in which they were made."""
    found = [message.as_json() for message in reversed(messages) if _is_asked_for(message, request.query)]
    size = int(request.query.get("PageSize", _PAGE_SIZE))
    number = int(request.query.get("Page", 0))
    return _page(request, found, number, size)


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
    """A message that waits has no date at which it was sent, and no filter by that date finds it."""
    return message.sent_at is not None and holds(message.sent_at.date())


def _page(request: web.Request, resources: list[dict[str, Any]], page: int, size: int) -> dict[str, Any]:
    first, last = page * size, (page + 1) * size
    here = resources[first:last]
    more = str(request.rel_url.update_query({"Page": str(page + 1)})) if len(resources) > last else None
    return {
        "messages": here,
        "page": page,
        "page_size": size,
        "start": first,
        "end": max(first, first + len(here) - 1),
        "first_page_uri": str(request.rel_url.update_query({"Page": "0"})),
        "next_page_uri": more,
        "previous_page_uri": None if page == 0 else str(request.rel_url.update_query({"Page": str(page - 1)})),
        "uri": str(request.rel_url),
    }
