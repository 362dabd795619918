"""Uploads files of Django's mails to the service."""

from __future__ import annotations

import mimetypes
from dataclasses import replace

from notifier.client.service_requests import upload_file
from notifier.contrib.django import mail_faults
from notifier.domain.errors import Fault, InvalidMessage


def upload(field: str, name: str | None, content: str | bytes, kind: str | None) -> str:
    """Upload a file. Returns its id.

    Raises:
        InvalidMessage: the service does not accept the file; the faults name this `field`.
        ConfigurationError, ServiceUnavailable: as for `upload_file`.
    """
    # Imported here because models cannot be imported before Django's apps are ready.
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
    """The service's fault in a request, told as a fault of the attached file."""
    if fault.field.lower() == "content-disposition":
        return mail_faults.bad_name(field)
    if fault.code == "attachment_empty":
        return replace(fault, field=field, problem="is empty", fix="Give its content")
    return replace(fault, field=field)
