"""What a client says to hand a file over, and to list notifications; see `notifier.client.conversations`."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from pydantic_core import from_json

from notifier.client.conversations import ApiReply, ApiRequest, Conversation
from notifier.domain.errors import ConfigurationError, ServiceUnavailable


def upload_file(name: str, content: bytes, content_type: str) -> Conversation[str]:
    """Its id for `attachments`. The same file, with the same name and type, has the same id.

    Raises:
        ServiceUnavailable: the service does not answer now.
        ConfigurationError: it refuses the key or the file; the text says why.
    """
    headers = (
        ("content-type", content_type),
        ("content-disposition", f"attachment; filename*=UTF-8''{quote(name, safe='')}"),
    )
    reply = yield ApiRequest("POST", "/v1/attachments", body=content, headers=headers)
    return str(_answer(reply, "the file")["id"])


def list_notifications(recipient: str, after: str | None = None) -> Conversation[dict[str, Any]]:
    """What this address or number was sent, as far as the key may see it, newest first: a page of `items`, and
    `next`, which is `after` of the next page (None: there is none).

    Raises:
        ServiceUnavailable: the service does not answer now.
        ConfigurationError: it refuses the key; the text says why.
    """
    query = [("recipient", recipient), *([("after", after)] if after else [])]
    reply = yield ApiRequest("GET", "/v1/notifications", tuple(query))
    return _answer(reply, "the search")


def _answer(reply: ApiReply, what: str) -> dict[str, Any]:
    if reply.is_temporary:
        raise ServiceUnavailable(f"the service did not take {what}: {reply.detail}; try again later")
    if reply.status not in (200, 201):
        raise ConfigurationError(f"the service refuses {what}: {reply.detail}", setting="NOTIFIER_API_KEY")
    found: dict[str, Any] = from_json(reply.body)
    return found
