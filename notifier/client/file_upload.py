"""What a client says to hand a file over for mails; see `notifier.client.conversations`."""

from __future__ import annotations

from urllib.parse import quote

from pydantic_core import from_json

from notifier.client.conversations import ApiRequest, Conversation
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
    if reply.is_temporary:
        raise ServiceUnavailable(f"the service did not take the file: {reply.detail}; try again later")
    if reply.status != 201:
        raise ConfigurationError(
            f"the service refuses the file or the key: {reply.detail}", setting="NOTIFIER_API_KEY"
        )
    return str(from_json(reply.body)["id"])
