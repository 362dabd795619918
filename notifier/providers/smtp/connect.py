"""Opens a connection to a mail server: TCP, greeting, TLS, login. No answer here is about a message."""

from __future__ import annotations

import ssl

import aiohappyeyeballs
import aiosmtplib

from notifier.domain.certificates import is_of_another_host
from notifier.domain.errors import SendError
from notifier.providers.mail.code_table import Stage
from notifier.providers.mail.codes import judge, read_answer
from notifier.providers.outcomes import ACCOUNT, UNAVAILABLE
from notifier.providers.redaction import mail_detail
from notifier.providers.smtp.options import Encryption, SmtpOptions
from notifier.providers.system_resolver import SystemResolver

#: aiosmtplib's values for STARTTLS: True requires it, False never uses it, None uses it if the server offers it.
_STARTTLS = {
    Encryption.IMPLICIT: False,
    Encryption.NEVER: False,
    Encryption.REQUIRED: True,
    Encryption.OPPORTUNISTIC: None,
}


#: If an address does not answer within this, the next one is tried as well. Seconds.
_NEXT_ADDRESS_SECONDS = 0.25


async def connect(options: SmtpOptions, names: SystemResolver) -> aiosmtplib.SMTP:
    """Connect, encrypt and log in. Has no time limit of its own; the caller's limit covers the whole send.

    Raises:
        OSError, aiosmtplib.SMTPException: see `failed_to_connect`.
    """
    found = await names.look_up(options.url.host, options.url.port)
    sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS)
    smtp = aiosmtplib.SMTP(
        hostname=options.url.host,
        sock=sock,
        username=options.url.username,
        password=options.url.password,
        local_hostname=options.local_hostname,
        use_tls=options.url.encryption is Encryption.IMPLICIT,
        start_tls=_STARTTLS[options.url.encryption],
        tls_context=options.tls,
        timeout=None,
    )
    try:
        await smtp.connect()
    except BaseException:
        if smtp.transport is None:
            sock.close()
        raise
    try:
        if smtp.is_ehlo_or_helo_needed:
            await smtp.ehlo()
    except BaseException:
        smtp.close()
        raise
    return smtp


def describe(smtp: aiosmtplib.SMTP, options: SmtpOptions) -> str:
    """For people: "mail.example.com answered 220, STARTTLS, authenticated"."""
    encrypted = smtp.get_transport_info("sslcontext") is not None
    by_starttls = "STARTTLS" if encrypted else "not encrypted"
    how = "TLS" if options.url.encryption is Encryption.IMPLICIT else by_starttls
    login = "authenticated" if options.url.username else "no login"
    return f"{options.url.host} answered 220, {how}, {login}"


def failed_to_connect(options: SmtpOptions, error: Exception) -> SendError:
    """What an error of `connect` means. It is never a refusal: the message waits for a working connection."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        stage = Stage.AUTH if isinstance(error, aiosmtplib.SMTPAuthenticationError) else Stage.CONNECT
        answer = read_answer(error.code, error.message)
        words = mail_detail(answer.text, recipient=options.url.username or "")
        return judge(stage, answer).error(f"{options.url.host} answers at {stage}: {words}", code=answer.code)
    tls = _tls_failure(error)
    if tls is not None:
        is_name = is_of_another_host(tls)
        fix = "write its name in the URL" if is_name else "set ca_file to the issuer's certificate"
        problem = getattr(tls, "verify_message", "") or tls.reason or "handshake failed"
        return ACCOUNT.error(f"no TLS with {options.url.host}: {mail_detail(problem)}; {fix}")
    if isinstance(error, aiosmtplib.SMTPConnectError | aiosmtplib.SMTPServerDisconnected | OSError):
        return UNAVAILABLE.error(
            f"no connection to {options.url.host} port {options.url.port}: {mail_detail(_cause(error))}"
        )
    # The remaining cause is a feature missing from EHLO: STARTTLS, AUTH, or a login method that both sides know.
    return ACCOUNT.error(f"{options.url.host}: {mail_detail(str(error))}")


def _tls_failure(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__
    return None


def _cause(error: Exception) -> str:
    found = error.__cause__ or error
    if isinstance(found, OSError) and found.strerror:
        return found.strerror
    return str(found) or type(found).__name__
