"""Conversations that upload a file and list notifications; see `notifier.client.conversations`."""

from __future__ import annotations

from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from notifier.client.conversations import ApiReply, ApiRequest, Conversation, no_api, refused_key
from notifier.client.replies import FileReply, PageReply, faults_of, read
from notifier.domain.errors import ConfigurationError, InvalidMessage, ServiceUnavailable

_Model = TypeVar("_Model", bound=BaseModel)


def upload_file(name: str, content: bytes, content_type: str) -> Conversation[str]:
    """Upload a file. Returns its id for `attachments`; the same file with the same name and type has the same id.

    Raises:
        InvalidMessage: the service refuses the file for its name, type or size; `faults` says why.
        ServiceUnavailable: the service does not answer now.
        ConfigurationError: the service refuses the key; the text says why.
    """
    headers = (
        ("content-type", content_type),
        ("content-disposition", f"attachment; filename*=UTF-8''{quote(name, safe='')}"),
    )
    reply = yield ApiRequest("POST", "/v1/attachments", body=content, headers=headers)
    if reply.status in (413, 415, 422) and reply.refusal is not None and reply.refusal.errors:
        raise InvalidMessage(faults_of(reply.refusal.errors, ""))
    return _answer(FileReply, reply, "the file", "send").id


def list_notifications(recipient: str, after: str | None = None) -> Conversation[dict[str, Any]]:
    """List what was sent to this address or number, newest first, as far as the key may see it. Returns a page of
    `items`, and `next`: the value of `after` for the next page (None: there is none).

    Raises:
        ServiceUnavailable: the service does not answer now.
        ConfigurationError: the service refuses the key; the text says why.
    """
    query = [("recipient", recipient), *([("after", after)] if after else [])]
    reply = yield ApiRequest("GET", "/v1/notifications", tuple(query))
    return _answer(PageReply, reply, "the search", "read").model_dump()


def _answer(model: type[_Model], reply: ApiReply, what: str, scope: str) -> _Model:
    if reply.is_temporary:
        raise ServiceUnavailable(f"the service did not take {what}: {reply.detail}; try again later")
    if reply.is_lasting or reply.status in (401, 403):
        raise refused_key(reply, scope)
    if reply.status == 413:
        fix = "send a smaller one, or have the server in front of the service accept larger bodies"
        raise ConfigurationError(f"{what} is too large ({reply.detail}): {fix}")
    if reply.status not in (200, 201):
        raise ConfigurationError(f"the service refuses {what}: {reply.detail}", setting="NOTIFIER_API_KEY")
    found = read(model, reply.body)
    if found is None:
        raise no_api()
    return found
