"""`POST /v1/attachments`: stores a file for mails before it answers."""

from __future__ import annotations

from email.message import Message as Headers
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Request
from pydantic import BaseModel, ConfigDict

from notifier.api import openapi_examples
from notifier.api.auth import Sender
from notifier.api.dependencies import AttachmentsDep
from notifier.api.errors import Refusal, errors_of, refusal
from notifier.api.headers import as_written
from notifier.api.routers import keyed_router
from notifier.domain.errors import Fault, InvalidMessage
from notifier.domain.statuses import Channel

router = keyed_router("send", 413, 415)

PATH = "/v1/attachments"


class AttachmentReceipt(BaseModel):
    """A file that messages may name."""

    model_config = ConfigDict(json_schema_extra={"examples": [openapi_examples.ATTACHMENT]})

    #: For `attachments` of a message.
    id: UUID
    name: str
    content_type: str
    #: Bytes.
    size: int
    #: Hexadecimal.
    sha256: str


async def _body(request: Request) -> bytes:
    """The body's bytes. `Shield` enforces the limit."""
    return await request.body()


_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
#: Two of the types that are accepted by default.
_FILE = {"requestBody": {"required": True, "content": {"application/pdf": _BYTES, "text/plain": _BYTES}}}


@router.post(PATH, status_code=201, summary="Upload a file", openapi_extra=_FILE)
def attach(
    attachments: AttachmentsDep,
    holder: Sender,
    body: Annotated[bytes, Depends(_body)],
    content_disposition: Annotated[
        str,
        Header(
            max_length=1000,
            description='`attachment; filename="invoice.pdf"`, or `filename*` (RFC 6266).',
            examples=['attachment; filename="invoice.pdf"'],
        ),
    ],
    content_type: Annotated[str, Header(max_length=300, include_in_schema=False)] = "",
    content_encoding: Annotated[str, Header(max_length=300, include_in_schema=False)] = "identity",
) -> AttachmentReceipt:
    """Keep a file for mails of this producer. Messages name it in `attachments`; a file that no message names
    within a day is deleted. The same file again, with the same name and type, has the same id."""
    assert holder.producer is not None, "the scope send has one"
    no_mail = [fault for fault in holder.template_faults(Channel.EMAIL, "") if fault.field == "channel"]
    if no_mail:
        raise refusal(no_mail)
    if content_encoding.strip().lower() != "identity":
        fix = "Send the file as it is"
        fault = Fault("Content-Encoding", "wrong_content_encoding", "names a compression", fix)
        raise _refusal(InvalidMessage([fault]))
    try:
        name = _name(content_disposition)
        kept = attachments.add(holder.producer, name, content_type, body, is_test=holder.is_test)
    except InvalidMessage as error:
        raise _refusal(error) from None
    return AttachmentReceipt.model_validate(kept, from_attributes=True)


def _name(disposition: str) -> str:
    """The file name in the header; "" if there is none."""
    headers = Headers()
    disposition = as_written(disposition)
    try:
        headers["Content-Disposition"] = disposition
        # The value of an extended parameter has three parts, which the library's annotation does not say.
        parameters: list[tuple[str, Any]] = headers.get_params([], header="Content-Disposition")
    except (ValueError, LookupError):
        return ""
    if disposition.lower().count("filename*=") > 1:
        return ""  # the library joins them
    values = [value for name, value in parameters if name.lower() == "filename"]
    # RFC 6266 section 4.3: a readable `filename*` takes precedence, wherever it stands.
    extended = [_extended(value) for value in values if isinstance(value, tuple)]
    plain = [value for value in values if isinstance(value, str)]
    return next(filter(None, [*extended, *plain]), "")


def _extended(value: tuple[str | None, str | None, str]) -> str:
    """The text of a `filename*`; "" unless it uses one of the two charsets in RFC 5987 section 3.2."""
    charset, _, text = value
    if (charset or "").lower() not in ("utf-8", "iso-8859-1"):
        return ""
    try:
        return text.encode("latin-1").decode(charset or "")
    except ValueError:
        return ""


def _refusal(error: InvalidMessage) -> Refusal:
    """The refusal. A fault in a header is reported as a parameter."""
    answer = refusal(error.faults)
    errors = []
    for fault, one in zip(error.faults, errors_of(error.faults), strict=True):
        place = {"parameter": fault.field} if fault.field else {"pointer": ""}
        errors.append({**{name: text for name, text in one.items() if name != "pointer"}, **place})
    return Refusal(answer.status_code, str(answer.detail), errors)
