"""Files of Django's mails, on their way to the service."""

from __future__ import annotations

import mimetypes
from dataclasses import replace

from notifier.client.service_requests import upload_file
from notifier.contrib.django import mail_faults
from notifier.domain.errors import Fault, InvalidMessage


def upload(field: str, name: str | None, content: str | bytes, kind: str | None) -> str:
    """Its id.

    Raises:
        InvalidMessage: the service does not take it; the faults are of this `field`.
        ConfigurationError, ServiceUnavailable: as `upload_file`.
    """
    # Imported here: models cannot be before Django's apps are.
    from notifier.contrib.django.sending import service_api

    try:
        return service_api().run(upload_file(*_file(name, content, kind)))
    except InvalidMessage as error:
        raise InvalidMessage([_of_mail(field, fault) for fault in error.faults]) from None


def _file(name: str | None, content: str | bytes, kind: str | None) -> tuple[str, bytes, str]:
    kind = kind or mimetypes.guess_type(name or "")[0] or "application/octet-stream"
    name = name or f"attachment{mimetypes.guess_extension(kind) or ''}"
    if isinstance(content, str) and kind.startswith("text/") and "charset" not in kind:
        kind += "; charset=utf-8"
    return name, mail_faults.file_bytes(content), kind


def _of_mail(field: str, fault: Fault) -> Fault:
    """What the service says about a request, in words of who attached the file."""
    if fault.field.lower() == "content-disposition":
        return mail_faults.bad_name(field)
    if fault.code == "attachment_empty":
        return replace(fault, field=field, problem="is empty", fix="Give its content")
    return replace(fault, field=field)
