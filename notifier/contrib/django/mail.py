"""Django's mail through the service: `send_mail`, password resets, `mail_admins` and every app's own mails.

    EMAIL_BACKEND = "notifier.contrib.django.mail.EmailBackend"
    MAILERS = {"default": {"BACKEND": "notifier.contrib.django.mail.EmailBackend"}}  # from Django 6.1 on

Each recipient gets a mail of its own, made of the template `raw_email` with the subject, text and HTML given.
Mails become rows of the outbox in the current transaction, as with `notifier.contrib.django.send`: one that is
rolled back is not sent.

What a notification cannot carry (headers, an address to reply to that is no sender identity, pictures inside of
the HTML) is refused rather than left out. Whoever needs more of the service calls `send` with a template.

Crash points: none of its own. A file that was uploaded for a mail that is not committed is deleted after a day.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from notifier.contrib.django.mail_draft import MailDraft
from notifier.contrib.django.settings import DjangoSettings
from notifier.domain.errors import ConfigurationError, InvalidMessage, NotifierError, ServiceUnavailable

log = logging.getLogger("notifier.contrib.django.mail")


class EmailBackend(BaseEmailBackend):  # type: ignore[misc]  # Django ships no types
    """Writes Django's mails into the outbox of notifier."""

    def __init__(self, fail_silently: bool = False, *, alias: str | None = None, **options: Any) -> None:
        """`alias` and `options` come from MAILERS (Django 6.1), which refuses options that are not known. What
        `send_mail` passes on without it, user and password of a mail server, is not needed."""
        super().__init__(**({} if alias is None else {"alias": alias, **options}))
        self.fail_silently = fail_silently

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """The number of mails that were written into the outbox, whatever the number of their recipients.

        Unless `fail_silently`, all of them are, or none. With it, one that raises any of these is left out, not
        counted, and named in the log. Errors of the database are raised all the same: the transaction is broken.

        Raises:
            InvalidMessage: `faults` lists everything that is wrong; of several mails, fields are prefixed with the
                mail's position, from 0. A `ValueError`, as Django's `BadHeaderError`.
            ConfigurationError: a setting is missing or wrong, or the service refuses the key.
            ServiceUnavailable: an attachment could not be uploaded.
        """
        given = list(email_messages)
        mails = {
            f"{position}." if len(given) > 1 else "": mail
            for position, mail in enumerate(given)
            if _has_recipients(mail)
        }
        if not self.fail_silently:
            self._write(mails)
            return len(mails)
        return sum(map(self._was_written, mails.values()))

    def _was_written(self, mail: EmailMessage) -> bool:
        try:
            self._write({"": mail})
        except (NotifierError, ValueError) as error:
            log.warning("a mail was left out, as it may fail silently: %s", _without_values(error))
            return False
        return True

    def _write(self, mails: Mapping[str, EmailMessage]) -> None:
        """Writes mails, by what their fields are prefixed with."""
        if not mails:
            return
        # Imported here: models cannot be before Django's apps are.
        from notifier.contrib.django.sending import messages

        settings = DjangoSettings.read().require("NOTIFIER_PRODUCER", "NOTIFIER_SENDERS")
        outbox = messages(None)
        drafts = {prefix: MailDraft(mail, settings.senders, outbox) for prefix, mail in mails.items()}
        try:
            for draft in drafts.values():
                draft.upload_files()
        except (ConfigurationError, ServiceUnavailable):
            # A mail that is wrong stays wrong, whenever the service answers.
            if not any(draft.faults for draft in drafts.values()):
                raise
        faults = [
            replace(fault, field=f"{prefix}{fault.field}".rstrip("."))
            for prefix, draft in drafts.items()
            for fault in draft.faults
        ]
        if faults:
            raise InvalidMessage(faults)
        outbox.write([message for draft in drafts.values() for message in draft.messages()])


def _has_recipients(mail: EmailMessage) -> bool:
    """Also where that cannot be told, and the mail will be refused."""
    try:
        return bool(mail.recipients())
    except TypeError:
        return True


def _without_values(error: Exception) -> str:
    """What it says, without what a mail holds: Django's own errors repeat subjects and addresses."""
    return str(error) if isinstance(error, NotifierError) else type(error).__name__
