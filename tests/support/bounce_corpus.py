"""Mails that come back, in the form that each kind of server writes, with the expected result for each.

They were written for this project from what makers and users describe in public; names and addresses are reserved
ones. The mail was sent to zoe@example.net from shop@example.com, with the return path `RETURN_PATH`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

RECIPIENT = "zoe@example.net"
SENDER = "shop@example.com"
RETURN_PATH = "bounces+mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpiyteny1@bounces.example.com"

_MAIL = f"""From: Shop <{SENDER}>
To: {RECIPIENT}
Subject: Your order
Message-ID: <0198c0de-0000-7000-8000-000000000001@example.com>

Hello. 550 5.1.1 is what stands in it, and "mailbox is full".
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """One mail, and what should be read in it."""

    name: str
    mail: bytes
    #: "failed", "expired", "delayed", "delivered", "complaint", "reply" or "unread".
    kind: str
    #: What it means for the recipient: "dead", "soft", "none" or "behind".
    effect: str = "none"
    #: Enhanced code; "": none.
    code: str = ""
    #: Reason, if the notification did not arrive.
    reason: str = ""


def dsn(
    fields: str,
    said: str = "Your mail could not be delivered.",
    *,
    head: str = "From: Mail Delivery System <MAILER-DAEMON@relay.example.com>\nSubject: Undelivered Mail Returned to Sender",
    reporting: str = "Reporting-MTA: dns; relay.example.com",
    status_headers: str = "",
) -> bytes:
    """A report of RFC 3464 with these fields about the recipient."""
    return f"""Return-Path: <>
{head}
To: {RETURN_PATH}
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b1"

This is a MIME-encapsulated message.

--b1
Content-Type: text/plain; charset=utf-8

{said}

--b1
Content-Type: message/delivery-status
{status_headers}
{reporting}

{fields}

--b1
Content-Type: message/rfc822

{_MAIL}
--b1--
""".encode()


def failed(status: str, diagnostic: str, said: str = "Your mail could not be delivered.", **more: str) -> bytes:
    """A report of one failure, in Postfix's words."""
    fields = f"Final-Recipient: rfc822; {RECIPIENT}\nOriginal-Recipient: rfc822;{RECIPIENT}\nAction: failed\nStatus: {status}"
    remote = "\nRemote-MTA: dns; mx.example.net" if diagnostic.startswith("smtp;") else ""
    return dsn(f"{fields}{remote}\nDiagnostic-Code: {diagnostic}" if diagnostic else fields, said, **more)


def text(
    said: str, sender: str, subject: str, *, more: str = "", charset: str = "utf-8", returned: str = ""
) -> bytes:
    """A report that is a single text."""
    head = f"From: {sender}\nTo: {RETURN_PATH}\nSubject: {subject}\n{more}".rstrip("\n")
    body = f"{said}\n{returned}".encode(charset)
    return f"{head}\nMIME-Version: 1.0\nContent-Type: text/plain; charset={charset}\n\n".encode() + body


def exim(why: str, *, failed_to: str = RECIPIENT) -> bytes:
    """Exim's report without its machine-readable part."""
    said = f"""This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  {failed_to}
{why}
"""
    returned = f"------ This is a copy of the message, including all the headers. ------\n\n{_MAIL}"
    more = f"Auto-Submitted: auto-replied\nX-Failed-Recipients: {failed_to}"
    subject = "Mail delivery failed: returning message to sender"
    return text(
        said, "Mail Delivery System <Mailer-Daemon@exim.example.com>", subject, more=more, returned=returned
    )


def qmail(why: str, *, greeting: str = "") -> bytes:
    """A report in qmail's format QSBMF."""
    said = (
        greeting
        or """Hi. This is the qmail-send program at qmail.example.com.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out."""
    )
    returned = f"\n--- Below this line is a copy of the message.\n\n{_MAIL}"
    return text(
        f"{said}\n\n<{RECIPIENT}>:\n{why}\n",
        "MAILER-DAEMON@qmail.example.com",
        "failure notice",
        returned=returned,
    )


def complaint(headers: str, *, sender: str = "complaints@isp.example", subject: str = "FW: Your order") -> bytes:
    """A feedback report about a complaint."""
    return f"""From: <{sender}>
To: bounces@bounces.example.com
Subject: {subject}
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="b1"

--b1
Content-Type: text/plain

This is an email abuse report.

--b1
Content-Type: message/feedback-report

{headers}

--b1
Content-Type: message/rfc822

Return-Path: <{RETURN_PATH}>
{_MAIL}
--b1--
""".encode()


_JMRP = f"""From: staff@hotmail.com
To: bounces@bounces.example.com
Subject: complaint about message from 192.0.2.1
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="b1"

--b1
Content-Type: message/rfc822
Content-Disposition: inline

X-HmXmrOriginalRecipient: {RECIPIENT}
X-MS-Exchange-EOPDirect: true
Return-Path: {RETURN_PATH}
{_MAIL}
--b1--
""".encode()

_OFFICE = "From: <postmaster@exchange.example.com>\nSubject: Undeliverable: Your order\nAuto-Submitted: auto-replied\nX-MS-Exchange-Message-Is-Ndr:"
_GMAIL = f"From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>\nSubject: Delivery Status Notification (Failure)\nAuto-Submitted: auto-replied\nX-Failed-Recipients: {RECIPIENT}"
_FINAL = f"Final-Recipient: rfc822; {RECIPIENT}\n"


POSTFIX = [
    Shape(
        "postfix, no such user",
        failed(
            "5.1.1",
            f"smtp; 550 5.1.1 <{RECIPIENT}>: Recipient address rejected:\n    User unknown in virtual mailbox table",
        ),
        "failed",
        "dead",
        "5.1.1",
        "invalid_recipient",
    ),
    Shape(
        "postfix, its own mailbox",
        failed("5.1.1", 'X-Postfix; unknown user: "zoe"'),
        "failed",
        "dead",
        "5.1.1",
        "invalid_recipient",
    ),
    Shape(
        "postfix, full",
        failed("5.2.2", "smtp; 552 5.2.2 Over quota"),
        "failed",
        "soft",
        "5.2.2",
        "unreachable_recipient",
    ),
    Shape(
        "postfix, gave up",
        failed("4.4.1", "X-Postfix; connect to mx.example.net[192.0.2.25]:25: Connection\n    timed out"),
        "failed",
        "soft",
        "4.4.1",
        "unreachable_recipient",
    ),
    Shape(
        "postfix, unverified for days",
        failed("4.1.1", f"smtp; 450 4.1.1 <{RECIPIENT}>: Recipient address rejected: unverified address"),
        "failed",
        "soft",
        "4.1.1",
    ),
    Shape(
        "postfix, no such domain by its DNS",
        failed(
            "5.4.4",
            "X-Postfix; Host or domain name not found. Name service error for\n    name=example.net type=AAAA: Host not found",
        ),
        "failed",
        "soft",
        "5.4.4",
    ),
    Shape(
        "postfix, refused our sender after RCPT",
        failed(
            "5.1.1", f"smtp; 550 5.1.1 <{SENDER}>: Sender address rejected: User unknown in local recipient table"
        ),
        "failed",
        "none",
        "5.1.1",
        "sender_refused",
    ),
    Shape(
        "postfix, refused our return path after RCPT",
        failed("5.1.1", f"smtp; 550 5.1.1 <{RETURN_PATH}>: User unknown"),
        "failed",
        "none",
        "5.1.1",
        "sender_refused",
    ),
    Shape(
        "postfix, refused at MAIL FROM",
        failed(
            "5.1.1",
            "smtp; 550 5.1.1 User unknown",
            "host mx.example.net[192.0.2.25] said: 550 5.1.1 User unknown (in reply to\n    MAIL FROM command)",
        ),
        "failed",
        "none",
        "5.1.1",
        "",
    ),
    Shape(
        "postfix, a member of an alias",
        dsn(
            f"Original-Recipient: rfc822;{RECIPIENT}\nFinal-Recipient: rfc822; ann@inside.example.net\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 User unknown"
        ),
        "failed",
        "behind",
        "5.1.1",
    ),
    Shape(
        "postfix, delayed",
        dsn(
            f"{_FINAL}Action: delayed\nStatus: 4.4.1\nDiagnostic-Code: X-Postfix; connect to mx.example.net: Connection refused\nWill-Retry-Until: Sat, 28 Nov 2026 10:00:01 +0000"
        ),
        "delayed",
        "none",
        "4.4.1",
    ),
    Shape(
        "postfix, delivered",
        dsn(
            f"{_FINAL}Action: delivered\nStatus: 2.0.0\nDiagnostic-Code: X-Postfix; delivery via local: delivered to mailbox"
        ),
        "delivered",
    ),
    Shape(
        "postfix, spam after the data",
        failed("5.7.1", "smtp; 554 5.7.1 Message rejected as spam"),
        "failed",
        "none",
        "5.7.1",
    ),
    Shape(
        "postfix, too large",
        failed("5.3.4", "smtp; 552 5.3.4 Message size exceeds fixed limit"),
        "failed",
        "none",
        "5.3.4",
        "content_refused",
    ),
    Shape(
        "postfix, status by default beside a policy",
        failed("5.1.1", "smtp; 550 5.7.1 Message blocked by policy"),
        "failed",
        "none",
        "5.7.1",
    ),
    Shape(
        "postfix, status by default beside a full mailbox",
        failed("5.1.1", "smtp; 552 5.2.2 mailbox full"),
        "failed",
        "soft",
        "5.2.2",
    ),
    Shape(
        "postfix, status alone beside words without a code",
        failed("5.1.1", "smtp; 550 Administrative prohibition"),
        "failed",
        "soft",
        "5.1.1",
    ),
    Shape(
        "postfix, words against the code",
        failed("5.1.1", "smtp; 550 5.1.1 mailbox is over quota"),
        "failed",
        "soft",
        "5.1.1",
    ),
    Shape(
        "postfix, a forwarder rewrote our sender",
        failed("5.1.1", "smtp; 550 5.1.1 <SRS0=ab12=XY=example.com=shop@forward.example.org>: User unknown"),
        "failed",
        "none",
        "5.1.1",
        "sender_refused",
    ),
]

EXIM = [
    Shape(
        "exim, remote, no such user",
        exim(
            f"    host mx.example.net [192.0.2.25]\n    SMTP error from remote mail server after RCPT TO:<{RECIPIENT}>:\n    550 5.1.1 <{RECIPIENT}> User doesn't exist"
        ),
        "failed",
        "dead",
        "5.1.1",
        "invalid_recipient",
    ),
    Shape(
        "exim, remote, no enhanced code",
        exim(f"    SMTP error from remote mail server after RCPT TO:<{RECIPIENT}>:\n    550 No Such User Here"),
        "failed",
        "dead",
        "",
        "invalid_recipient",
    ),
    Shape(
        "exim, local, full",
        exim("    mailbox is full: retry timeout exceeded"),
        "failed",
        "soft",
        "",
        "unreachable_recipient",
    ),
    Shape(
        "exim, local, retry timeout",
        exim("    retry timeout exceeded"),
        "failed",
        "soft",
        "",
        "unreachable_recipient",
    ),
    Shape("exim, unrouteable", exim("    Unrouteable address"), "failed", "soft"),
    Shape(
        "exim, domain without a server",
        exim("    all relevant MX records point to non-existent hosts"),
        "failed",
        "none",
    ),
    Shape(
        "exim, refused our sender after RCPT",
        exim(
            f"    SMTP error from remote mail server after RCPT TO:<{RECIPIENT}>:\n    550-Verification failed for <{SENDER}>\n    550-No Such User Here\n    550 Sender verify failed"
        ),
        "failed",
        "none",
        "",
        "sender_refused",
    ),
    Shape(
        "exim, cPanel names our return path",
        exim(
            f"    SMTP error from remote mail server after RCPT TO:<{RECIPIENT}>:\n    550 No Such User Here: {RETURN_PATH}"
        ),
        "failed",
        "none",
        "",
        "sender_refused",
    ),
    Shape(
        "exim, a child of an alias",
        exim(
            "    (generated from zoe@example.net)\n    550 5.1.1 User unknown", failed_to="ann@inside.example.net"
        ),
        "failed",
        "behind",
        "5.1.1",
    ),
    Shape(
        "exim, spam",
        exim(
            "    SMTP error from remote mail server after end of data:\n    550 This message was classified as SPAM and may not be delivered"
        ),
        "failed",
        "none",
    ),
    Shape(
        "exim, warning",
        text(
            f"""This message was created automatically by mail delivery software.
A message that you sent has not yet been delivered to one or more of its
recipients after more than 24 hours on the queue on exim.example.com.

The address to which the message has not yet been delivered is:

  {RECIPIENT}
    host mx.example.net [192.0.2.25]
    Delay reason: SMTP error: 451 Temporary local problem - please try later

No action is required on your part. Delivery attempts will continue for
some time, and this warning may be repeated.
""",
            "Mail Delivery System <Mailer-Daemon@exim.example.com>",
            "Warning: message 1kXyZ1-0001ab-Cd delayed 24 hours",
            more="Auto-Submitted: auto-replied",
        ),
        "delayed",
    ),
    Shape(
        "exim, report for programs with an empty status",
        dsn(
            f"Action: failed\nFinal-Recipient: rfc822;{RECIPIENT}\nStatus: 5.0.0",
            f"The following address(es) failed:\n\n  {RECIPIENT}\n    mailbox is full",
            head=f"X-Failed-Recipients: {RECIPIENT}\nAuto-Submitted: auto-replied\nFrom: Mail Delivery System <Mailer-Daemon@exim.example.com>\nSubject: Mail delivery failed",
        ),
        "failed",
        "soft",
        "5.0.0",
    ),
    Shape(
        "exim, report for programs, the remote's code",
        dsn(
            f"Action: failed\nFinal-Recipient: rfc822;{RECIPIENT}\nStatus: 5.0.0\nRemote-MTA: dns; mx.example.net\nDiagnostic-Code: smtp; 550-5.1.1 <{RECIPIENT}> User doesn't exist,\n 550 5.1.1 look for another",
            head="Auto-Submitted: auto-replied\nFrom: Mail Delivery System <Mailer-Daemon@exim.example.com>\nSubject: Mail delivery failed",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
]

SENDMAIL = [
    Shape(
        "sendmail, report",
        failed(
            "5.1.1",
            f"SMTP; 550 5.1.1 <{RECIPIENT}>... User unknown",
            f"   ----- The following addresses had permanent fatal errors -----\n<{RECIPIENT}>\n    (reason: 550 5.1.1 <{RECIPIENT}>... User unknown)",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "sendmail, text alone",
        text(
            f"The original message was received at Mon, 23 Nov 2026 10:00:00 GMT\n\n   ----- The following addresses had permanent fatal errors -----\n<{RECIPIENT}>\n\n   ----- Transcript of session follows -----\n... while talking to mx.example.net.:\n>>> RCPT To:<{RECIPIENT}>\n<<< 550 5.1.1 <{RECIPIENT}>... User unknown\n550 5.1.1 <{RECIPIENT}>... User unknown\n",
            "Mail Delivery Subsystem <MAILER-DAEMON@sendmail.example.com>",
            "Returned mail: see transcript for details",
            returned=f"   ----- Original message follows -----\n{_MAIL}",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "sendmail, warning",
        dsn(
            f"{_FINAL}Action: delayed\nStatus: 4.2.0\nWill-Retry-Until: Sat, 28 Nov 2026 10:00:01 +0000",
            "    **********************************************\n    **      THIS IS A WARNING MESSAGE ONLY      **\n    **  YOU DO NOT NEED TO RESEND YOUR MESSAGE  **\n    **********************************************",
        ),
        "delayed",
        "none",
        "4.2.0",
    ),
    Shape(
        "sendmail, host unknown",
        failed(
            "5.1.2",
            "DNS; Host unknown",
            f"550 5.1.2 <{RECIPIENT}>... Host unknown (Name server: example.net: host not found)",
        ),
        "failed",
        "dead",
        "5.1.2",
    ),
    Shape(
        "sendmail, cannot send for five days",
        failed("4.4.7", "", "Message could not be delivered for 5 days\nMessage will be deleted from queue"),
        "failed",
        "soft",
        "4.4.7",
    ),
]

QMAIL = [
    Shape(
        "qmail, remote",
        qmail(
            "192.0.2.25 does not like recipient.\nRemote host said: 550 5.1.1 no mailbox here by that name\nGiving up on 192.0.2.25."
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape("qmail, local", qmail("Sorry, no mailbox here by that name. (#5.1.1)"), "failed", "dead", "5.1.1"),
    Shape("qmail, vpopmail", qmail("This address no longer accepts mail."), "failed", "soft"),
    Shape(
        "qmail, too long in the queue",
        qmail(
            "CNAME lookup failed temporarily. (#4.4.3)\nI'm not going to try again; this message has been in the queue too long."
        ),
        "failed",
        "soft",
        "4.4.3",
    ),
    Shape(
        "qmail, full",
        qmail("Recipient's mailbox is full, message returned to sender. (#5.2.2)"),
        "failed",
        "soft",
        "5.2.2",
    ),
    Shape(
        "qmail, refused our sender",
        qmail(f"Remote host said: 550 5.1.8 <{RETURN_PATH}>: Sender address rejected: Domain not found"),
        "failed",
        "none",
        "5.1.8",
    ),
]

MICROSOFT = [
    Shape(
        "exchange, not found",
        failed(
            "5.1.10",
            f"smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {RECIPIENT} not\n found by SMTP address lookup",
            head=_OFFICE,
        ),
        "failed",
        "dead",
        "5.1.10",
    ),
    Shape(
        "exchange 2010, not found",
        failed("5.1.1", "smtp;550 5.1.1 RESOLVER.ADR.ExRecipNotFound; not found", head=_OFFICE),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "exchange, full",
        failed(
            "5.2.2", "smtp;554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException", head=_OFFICE
        ),
        "failed",
        "soft",
        "5.2.2",
    ),
    Shape(
        "exchange, restricted",
        failed("5.7.1", "smtp;550 5.7.1 RESOLVER.RST.NotAuthorized; not authorized", head=_OFFICE),
        "failed",
        "none",
        "5.7.1",
    ),
    Shape(
        "exchange, no enhanced diagnostic",
        failed(
            "5.1.1",
            "",
            f"Your message to {RECIPIENT} couldn't be delivered.\n{RECIPIENT} wasn't found at example.net.",
            head=_OFFICE,
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "exchange 2003",
        text(
            f"Your message did not reach some or all of the intended recipients.\n\n      Subject:  Your order\n      Sent:     11/23/2026 10:00 AM\n\nThe following recipient(s) could not be reached:\n\n      {RECIPIENT} on 11/23/2026 10:00 AM\n            The e-mail account does not exist at the organization this message was sent to.\n            <mail.example.net #5.1.1>\n",
            "System Administrator <postmaster@exchange.example.com>",
            "Undeliverable: Your order",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "office 365, in front of a dead mailbox",
        failed(
            "5.0.350", "smtp;550 5.0.350 Remote server returned an error -> 550 5.1.1 User unknown", head=_OFFICE
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "office 365, directory block",
        failed("5.4.1", "smtp;550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", head=_OFFICE),
        "failed",
        "soft",
        "5.4.1",
    ),
    Shape(
        "office 365, message expired",
        failed(
            "5.4.316",
            "smtp;550 5.4.316 Message expired, connection refused(Socket error code 10061)",
            head=_OFFICE,
        ),
        "failed",
        "soft",
        "5.4.316",
    ),
    Shape(
        "office 365, our address may not send",
        failed(
            "5.7.708",
            "smtp;550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP",
            head=_OFFICE,
        ),
        "failed",
        "none",
        "5.7.708",
    ),
    Shape(
        "office 365, temporary for too long",
        failed("5.4.7", "smtp;450 4.2.2 mailbox full", head=_OFFICE),
        "failed",
        "soft",
        "4.2.2",
    ),
    Shape(
        "outlook.com, unavailable",
        failed(
            "5.5.0", "smtp; 550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).", head=_OFFICE
        ),
        "failed",
        "soft",
        "5.5.0",
    ),
    Shape(
        "outlook.com, full by its words",
        failed("5.2.2", "smtp; 554 5.2.2 mailbox full;", head=_OFFICE),
        "failed",
        "soft",
        "5.2.2",
    ),
    Shape(
        "outlook.com, blocked",
        failed(
            "5.7.1",
            "smtp; 550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3150).",
            head=_OFFICE,
        ),
        "failed",
        "none",
        "5.7.1",
    ),
    Shape(
        "exchange, delayed",
        dsn(
            f"{_FINAL}Action: delayed\nStatus: 4.4.7\nDiagnostic-Code: smtp;400 4.4.7 Message delayed",
            head="From: <postmaster@exchange.example.com>\nSubject: Delivery delayed: Your order\nAuto-Submitted: auto-replied",
        ),
        "delayed",
        "none",
        "4.4.7",
    ),
    Shape("hotmail, JMRP", _JMRP, "complaint"),
    Shape(
        "hotmail, JMRP as it was",
        f"From: Shop <{SENDER}>\nTo: {RECIPIENT}\nX-HmXmrOriginalRecipient: {RECIPIENT}\nReturn-Path: <{RETURN_PATH}>\nSubject: Your order\n\nHello\n".encode(),
        "complaint",
    ),
]

GMAIL = [
    Shape(
        "gmail, no such user",
        failed(
            "5.1.1",
            "smtp; 550-5.1.1 The email account that you tried to reach does not exist. Please try\n 550-5.1.1 double-checking the recipient's email address for typos or\n 550 5.1.1 unnecessary spaces. https://support.google.com/mail/?p=NoSuchUser",
            head=_GMAIL,
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "gmail, disabled",
        failed(
            "5.2.1",
            "smtp; 550-5.2.1 The email account that you tried to reach is disabled. Learn more at\n 550 5.2.1 https://support.google.com/mail/?p=DisabledUser",
            head=_GMAIL,
        ),
        "failed",
        "dead",
        "5.2.1",
    ),
    Shape(
        "gmail, over quota",
        failed("5.2.2", "smtp; 552-5.2.2 The email account that you tried to reach is over quota.", head=_GMAIL),
        "failed",
        "soft",
        "5.2.2",
    ),
    Shape(
        "gmail, receiving rate",
        failed(
            "5.2.1",
            "smtp; 550-5.2.1 The user you are trying to contact is receiving mail at a rate\n 550 5.2.1 that prevents additional messages from being delivered. ReceivingRatePerm",
            head=_GMAIL,
        ),
        "failed",
        "none",
        "5.2.1",
        "provider_throttled",
    ),
    Shape(
        "gmail, too quickly, for days",
        failed(
            "4.2.1",
            "smtp; 450-4.2.1 The user you are trying to contact is receiving mail too quickly.\n 450 4.2.1 Please resend your message at a later time.",
            head=_GMAIL,
        ),
        "failed",
        "none",
        "4.2.1",
        "provider_throttled",
    ),
    Shape(
        "gmail, unauthenticated",
        failed(
            "5.7.26",
            "smtp; 550-5.7.26 This mail has been blocked because the sender is unauthenticated.",
            head=_GMAIL,
        ),
        "failed",
        "none",
        "5.7.26",
    ),
    Shape(
        "gmail, rate limited us",
        failed(
            "4.7.28",
            "smtp; 421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP",
            head=_GMAIL,
        ),
        "failed",
        "none",
        "4.7.28",
    ),
    Shape(
        "gmail, empty status part",
        dsn(
            "",
            f"Delivery to the following recipient failed permanently:\n\n     {RECIPIENT}\n\nTechnical details of permanent failure:\n550 5.1.1 the account does not exist",
            head=_GMAIL,
            reporting="",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "gmail, text alone",
        text(
            f"Delivery to the following recipient failed permanently:\n\n     {RECIPIENT}\n\nTechnical details of permanent failure:\nGoogle tried to deliver your message, but it was rejected by the server for the recipient domain example.net by mx.example.net. [192.0.2.25].\n\nThe error that the other server returned was:\n550 5.1.1 <{RECIPIENT}>: Recipient address rejected: User unknown\n",
            "Mail Delivery Subsystem <mailer-daemon@googlemail.com>",
            "Delivery Status Notification (Failure)",
            more=f"X-Failed-Recipients: {RECIPIENT}\nAuto-Submitted: auto-replied",
            returned=f"----- Original message -----\n\n{_MAIL}",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "gmail, delayed",
        dsn(
            f"{_FINAL}Action: delayed\nStatus: 4.4.2\nRemote-MTA: dns; mx.example.net\nDiagnostic-Code: smtp; The recipient server did not accept our requests to connect.",
            head=_GMAIL.replace("(Failure)", "(Delay)"),
        ),
        "delayed",
        "none",
        "4.4.2",
    ),
]

YAHOO_AOL = [
    Shape(
        "yahoo, no account",
        text(
            f"Sorry, we were unable to deliver your message to the following address.\n\n<{RECIPIENT}>:\nRemote host said:\n554 delivery error: dd This user doesn't have a example.net account ({RECIPIENT}) [0] - mta1.mail.example.net [BODY]\n",
            "MAILER-DAEMON@yahoo.com",
            "Failure Notice",
            returned=f"--- Below this line is a copy of the message.\n\n{_MAIL}",
        ),
        "failed",
        "dead",
    ),
    Shape(
        "yahoo, deferred for too long",
        failed(
            "4.7.0", "smtp; 421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to user complaints"
        ),
        "failed",
        "none",
        "4.7.0",
    ),
    Shape(
        "yahoo, disabled",
        failed(
            "5.0.0",
            "smtp; 554 30 Sorry, your message to zoe@example.net cannot be delivered. This mailbox is disabled (554.30).",
        ),
        "failed",
        "soft",
        "5.0.0",
    ),
    Shape(
        "yahoo, over quota",
        failed("5.0.0", f"smtp; 552 1 Requested mail action aborted, mailbox not found or over quota {RECIPIENT}"),
        "failed",
        "soft",
        "5.0.0",
    ),
    Shape(
        "yahoo, complaint",
        complaint(
            f"Feedback-Type: abuse\nUser-Agent: Yahoo!-Mail-Feedback/2.0\nVersion: 0.1\nOriginal-Mail-From: <{RETURN_PATH}>\nOriginal-Rcpt-To: {RECIPIENT}"
        ),
        "complaint",
    ),
    Shape(
        "aol, mailbox not found",
        failed("5.1.1", f"smtp; 550 5.1.1 <{RECIPIENT}>: Recipient address rejected: aol.example"),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "aol, text alone",
        text(
            f"Your mail to the following recipients could not be delivered because they are not accepting mail from {SENDER}:\n\t{RECIPIENT}\n",
            "Mail Delivery Subsystem <MAILER-DAEMON@aol.example>",
            "Returned mail: Service unavailable",
        ),
        "failed",
        "none",
    ),
    Shape(
        "aol, complaint",
        complaint(
            f"Feedback-Type : abuse\nUser-Agent: AOL SComp\nVersion: 0.1\nReceived-Date: Mon, 23 Nov 2026 10:00:00 GMT\nOriginal-Mail-From : {RETURN_PATH}\nRedacted-Address: redacted@"
        ),
        "complaint",
    ),
]

GATEWAYS = [
    Shape(
        "mimecast, blanks before colons",
        dsn(
            f"Action : failed\nStatus : 5.1.1\nDiagnostic-Code : smtp;550 5.1.1 no such user\nFinal-Recipient : rfc822;{RECIPIENT}",
            reporting="Reporting-MTA : dns; mimecast.example.net",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "mimecast, refused by policy",
        dsn(
            f"Action : failed\nStatus : 5.0.0\nDiagnostic-Code : smtp;550 Administrative prohibition - envelope blocked\nFinal-Recipient : rfc822;{RECIPIENT}"
        ),
        "failed",
        "none",
        "5.0.0",
    ),
    Shape(
        "mimecast, full",
        dsn(
            f"Action : failed\nStatus : 5.2.2\nDiagnostic-Code : smtp;552 5.2.2 Mailbox full\nFinal-Recipient : rfc822;{RECIPIENT}"
        ),
        "failed",
        "soft",
        "5.2.2",
    ),
    Shape(
        "proofpoint, no such user",
        failed(
            "5.1.1",
            f"smtp; 550 5.1.1 <{RECIPIENT}>... User unknown",
            reporting="Reporting-MTA: dns; mx0a-0001.pphosted.example",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "proofpoint, dynamic reputation",
        failed("5.7.0", "smtp; 554 5.7.0 Blocked - see https://ipcheck.proofpoint.example/?ip=192.0.2.1"),
        "failed",
        "none",
        "5.7.0",
    ),
    Shape(
        "proofpoint, relay",
        failed("5.7.1", f"smtp; 550 5.7.1 <{RECIPIENT}>... Relaying denied"),
        "failed",
        "none",
        "5.7.1",
    ),
    Shape(
        "cisco, supplementary info",
        dsn(
            f"{_FINAL}Action: failed\nStatus: 5.0.0\nRemote-MTA: dns; mx.example.net\nX-Supplementary-Info: <mx.example.net #5.0.0 smtp; 550 5.1.1 {RECIPIENT}: Recipient address rejected: User unknown>"
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "cisco, diagnostic and info",
        dsn(
            f"{_FINAL}Action: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; 5.1.0 - Unknown address error 550-'5.2.2 mailbox full' (delivery attempts: 0)"
        ),
        "failed",
        "soft",
        "5.2.2",
    ),
    Shape(
        "cisco, supplementary info against us",
        dsn(
            f"{_FINAL}Action: failed\nStatus: 5.1.1\nX-Supplementary-Info: <mx.example.net #5.1.1 smtp; 550 5.7.1 <{SENDER}>: Sender address rejected>"
        ),
        "failed",
        "none",
        "5.7.1",
    ),
    Shape(
        "barracuda, in html",
        f"""From: Mail Delivery System <MAILER-DAEMON@gate.example.com>
To: {RETURN_PATH}
Subject: Message you sent was not delivered
MIME-Version: 1.0
Content-Type: text/html; charset=utf-8

<html><head><style>p {{ color: red }}</style></head><body><p>Your message could not be delivered.</p>
<p>&lt;{RECIPIENT}&gt;: host mx.example.net said:<br>550 5.1.1 &lt;{RECIPIENT}&gt;: User unknown</p></body></html>
""".encode(),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "a gateway that forwards the report",
        f"""From: Gateway <gateway@example.org>
To: {RETURN_PATH}
Subject: FW
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="outer"

--outer
Content-Type: text/plain

See below.

--outer
Content-Type: message/rfc822

""".encode()
        + failed("5.1.1", "smtp; 550 5.1.1 User unknown")
        + b"\n--outer--\n",
        "failed",
        "dead",
        "5.1.1",
    ),
]

SERVICES = [
    Shape(
        "ses, no such user",
        failed(
            "5.1.1",
            "smtp; 550 5.1.1 user unknown",
            head="From: MAILER-DAEMON@amazonses.com\nSubject: Delivery Status Notification (Failure)",
            reporting="Reporting-MTA: dns; a8-50.smtp-out.amazonses.com",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "ses, full",
        failed(
            "5.2.2",
            "smtp; 552 5.2.2 user over quota",
            head="From: MAILER-DAEMON@amazonses.com\nSubject: Delivery Status Notification (Failure)",
        ),
        "failed",
        "soft",
        "5.2.2",
    ),
    Shape(
        "ses, expired",
        failed(
            "4.4.7",
            "smtp; 550 4.4.7 Message expired: unable to deliver in 840 minutes.<421 4.4.0 Unable to lookup DNS for example.net>",
            head="From: MAILER-DAEMON@amazonses.com\nSubject: Delivery Status Notification (Failure)",
        ),
        "failed",
        "soft",
        "4.4.7",
    ),
    Shape(
        "ses, suppression list",
        failed(
            "5.1.1",
            "smtp; 550 5.1.1 Amazon SES did not send the message to this address because it is on the suppression list for your account.",
            head="From: MAILER-DAEMON@amazonses.com\nSubject: Delivery Status Notification (Failure)",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "ses, complaint",
        complaint(
            "Feedback-Type: abuse\nUser-Agent: Amazon SES\nVersion: 0.1",
            sender="complaints@email-abuse.amazonses.com",
            subject="Amazon SES Complaint",
        ),
        "complaint",
    ),
    Shape(
        "sendgrid, expired",
        dsn(f"{_FINAL}Action: expired\nStatus: \nDiagnostic-Code: smtp; delivery time expired"),
        "expired",
        "soft",
    ),
    Shape(
        "sendgrid, expired after an answer",
        dsn(f"{_FINAL}Action: expired\nStatus: 4.2.2\nDiagnostic-Code: 451 4.2.2 try again later"),
        "expired",
        "soft",
        "4.2.2",
    ),
    Shape(
        "sendgrid, no such user",
        dsn(
            f"{_FINAL}Action: failed\nStatus: 5.1.1\nDiagnostic-Code: 550 5.1.1 The email account that you tried to reach does not exist"
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "mailgun, no such user",
        failed(
            "5.1.1",
            "smtp; 550 5.1.1 mailbox unavailable: user does not exist",
            head="From: Mail Delivery System <postmaster@mg.example.com>\nSubject: Undeliverable",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "mailgun, given up",
        dsn(
            f"{_FINAL}Action: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; 498 No MX for example.net: too many delivery attempts"
        ),
        "failed",
        "soft",
        "5.0.0",
    ),
    Shape(
        "mandrill-like, without a report",
        text(
            f"The mail system could not deliver your message.\n\nRecipient: {RECIPIENT}\nReason: 550 5.1.1 unknown user\n",
            "postmaster@mail.example.com",
            "Delivery failure",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
]

EUROPE_ASIA = [
    Shape(
        "gmx, unknown",
        text(
            f"This message was created automatically by mail delivery software.\n\nA message that you sent could not be delivered to one or more of\nits recipients. This is a permanent error. The following address\nfailed:\n\n{RECIPIENT}:\nSMTP error from remote server for RCPT TO command, host: mx.example.net (192.0.2.25) reason: 550 Requested action not taken: mailbox unavailable - no such user\n",
            "GMX Mailer Daemon <mailer-daemon@gmx.example>",
            "Mail delivery failed: returning message to sender",
            returned=f"--- The header of the original message is following. ---\n\n{_MAIL}",
        ),
        "failed",
        "dead",
    ),
    Shape(
        "gmx, in German",
        text(
            f"Ihre Nachricht konnte nicht zugestellt werden.\n\n{RECIPIENT}:\nDas Postfach des Empfängers ist voll.\n",
            "Mail Delivery System <mailer-daemon@gmx.example>",
            "Unzustellbar: Your order",
        ),
        "failed",
        "soft",
    ),
    Shape(
        "web.de, in German, unknown",
        text(
            f"Die folgende Adresse konnte nicht erreicht werden:\n\n{RECIPIENT}:\nDieser Empfänger ist unbekannt. Die E-Mail konnte nicht zugestellt werden.\n",
            "Postmaster <postmaster@web.example>",
            "Unzustellbare E-Mail",
        ),
        "failed",
        "dead",
    ),
    Shape(
        "mail.ru, no such user",
        text(
            f"This message was created automatically by mail delivery software.\n\nA message that you sent could not be delivered to one or more of its\nrecipients. This is a permanent error. The following address(es) failed:\n\n  {RECIPIENT}\n    SMTP error from remote mail server after RCPT TO:<{RECIPIENT}>:\n    550 Message was not accepted -- invalid mailbox.  Local mailbox {RECIPIENT} is unavailable: user not found\n",
            "Mail Delivery System <mailer-daemon@corp.mail.example>",
            "Mail failure.",
            more=f"X-Failed-Recipients: {RECIPIENT}",
        ),
        "failed",
        "dead",
    ),
    Shape(
        "mail.ru, in Russian",
        text(
            f"Письмо не может быть доставлено.\n\n{RECIPIENT}\nПочтовый ящик получателя не существует.\n",
            "Mailer-Daemon <mailer-daemon@mail.example>",
            "Ошибка доставки",
            charset="koi8-r",
        ),
        "failed",
        "dead",
    ),
    Shape(
        "mail.ru, in Russian, full",
        text(
            f"Письмо не доставлено.\n\n{RECIPIENT}\nПочтовый ящик переполнен.\n",
            "Mailer-Daemon <mailer-daemon@mail.example>",
            "Недоставленное сообщение",
            charset="windows-1251",
        ),
        "failed",
        "soft",
    ),
    Shape(
        "mail.ru, spam",
        failed("5.0.0", "smtp; 550 spam message rejected. Please visit http://help.mail.example/notspam-support"),
        "failed",
        "none",
        "5.0.0",
    ),
    Shape("yandex, no such user", failed("5.7.1", "smtp; 550 5.7.1 No such user!"), "failed", "soft", "5.7.1"),
    Shape(
        "qq, user does not exist",
        text(
            f"抱歉,您的邮件被退回来了……\n\n收件人({RECIPIENT})\n退信原因:该用户不存在。\n",
            "PostMaster@qq.example",
            "系统退信/The email is returned",
            charset="gb18030",
        ),
        "failed",
        "dead",
    ),
    Shape(
        "qq, full",
        text(
            f"抱歉,您的邮件被退回来了。\n\n收件人邮件地址:{RECIPIENT}\n退信原因:收件人空间不足。\n",
            "PostMaster@qq.example",
            "系统退信",
            charset="gb18030",
        ),
        "failed",
        "soft",
    ),
    Shape(
        "qq, in smtp",
        failed(
            "5.0.0", "smtp; 550 Mailbox not found. http://service.mail.qq.example/cgi-bin/help?subtype=1&&id=20022"
        ),
        "failed",
        "dead",
        "5.0.0",
    ),
    Shape(
        "qq, frequency", failed("5.0.0", "smtp; 550 Mail content denied. 发送频率过高"), "failed", "none", "5.0.0"
    ),
    Shape(
        "163, user not found",
        text(
            f"您的邮件未能送达:{RECIPIENT}\n\n550 User not found: {RECIPIENT}\n",
            "Postmaster@163.example",
            "系统退信",
        ),
        "failed",
        "dead",
    ),
    Shape(
        "163, over quota",
        failed("5.0.0", "smtp; 552 Quota exceeded or service disabled."),
        "failed",
        "soft",
        "5.0.0",
    ),
    Shape(
        "163, spam",
        failed("5.0.0", "smtp; 554 DT:SPM 163 smtp1, please see http://mail.163.example/help/help_spam_16.htm"),
        "failed",
        "none",
        "5.0.0",
    ),
    Shape("163, suspended", failed("5.0.0", "smtp; 550 User suspended"), "failed", "soft", "5.0.0"),
    Shape(
        "docomo, in Japanese",
        text(
            f"以下の宛先に配信できませんでした。\n\n{RECIPIENT}\n宛先のメールアドレスが見つかりません。\n",
            "Mail Delivery Subsystem <MAILER-DAEMON@docomo.example>",
            "配信不能",
            charset="iso-2022-jp",
        ),
        "failed",
        "dead",
    ),
    Shape(
        "free.fr, in French, full",
        text(
            f"Votre message n'a pas pu être remis.\n\n<{RECIPIENT}>:\nLa boîte aux lettres du destinataire est pleine.\n",
            "Postmaster <postmaster@fr.example>",
            "Message non remis",
        ),
        "failed",
        "soft",
    ),
    Shape(
        "terra, in Spanish",
        text(
            f"No se ha podido entregar su mensaje.\n\n<{RECIPIENT}>:\nEl usuario no existe.\n",
            "Mailer-Daemon <mailer-daemon@es.example>",
            "No se pudo entregar",
        ),
        "failed",
        "dead",
    ),
]

SECOND_LOOKS = [
    Shape(
        "it will not be tried again",
        text(
            f"The message was not delivered. The server will not retry it.\n\n<{RECIPIENT}>: 550 5.1.1 user unknown\n",
            "postmaster@mail.example",
            "Delivery report",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "somebody else's report, copied by a person",
        text(
            "Hi. This is the qmail-send program at qmail.example.com.\nI'm afraid I wasn't able to deliver your message to the following addresses.\n\n<ann@example.org>:\nSorry, no mailbox here by that name. (#5.1.1)\n",
            f"Zoe <{RECIPIENT}>",
            "Fwd: failure notice",
        ),
        "unread",
    ),
    Shape(
        "two codes in one answer",
        failed(
            "5.1.1",
            f"smtp; 550 5.1.1 <{RECIPIENT}>: undeliverable address: host mx.inner.example said: 554 5.7.1 <{RECIPIENT}>: rejected",
        ),
        "failed",
        "soft",
        "5.1.1",
    ),
    Shape(
        "relay access denied, told by another server",
        failed(
            "5.1.1",
            f"smtp; 550 5.1.1 <{RECIPIENT}>: Recipient address rejected: undeliverable address: host mx.example.net[192.0.2.5] said: 554 5.7.1 <{RECIPIENT}>: Relay access denied (in reply to RCPT TO command)",
        ),
        "failed",
        "none",
        "5.1.1",
    ),
    Shape(
        "a host with a word in its name",
        failed(
            "5.1.1",
            f"smtp; 550 5.1.1 <{RECIPIENT}>: User unknown at mx.spam.example, see https://policy.example/blacklist",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "a sentence that names both sides",
        text(
            f"Your mail from {SENDER} to {RECIPIENT} could not be delivered: 550 5.1.1 user unknown\n",
            "Mail Server <mailserver@mail.example>",
            "Undeliverable",
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "a delay that names its recipient in a header",
        text(
            f"This is an automatically generated Delivery Status Notification\n\nTHIS IS A WARNING MESSAGE ONLY.\n\nYOU DO NOT NEED TO RESEND YOUR MESSAGE.\n\nDelivery to the following recipient has been delayed:\n\n     {RECIPIENT}\n\nMessage will be retried for 2 more day(s)\n",
            "Mail Delivery Subsystem <mailer-daemon@googlemail.com>",
            "Delivery Status Notification (Delay)",
            more=f"X-Failed-Recipients: {RECIPIENT}",
        ),
        "delayed",
    ),
    Shape(
        "a bounce in words that nobody knows",
        f"From: Correo <correo@mail.example>\nTo: {RETURN_PATH}\nSubject: Undeliverable\nAuto-Submitted: auto-replied\n\nXyzzy.\n".encode(),
        "unread",
    ),
    Shape(
        "several failed, ours among them",
        exim("    550 5.1.1 User unknown\n  ann@example.org\n    550 5.1.1 User unknown").replace(
            f"X-Failed-Recipients: {RECIPIENT}".encode(),
            f"X-Failed-Recipients: {RECIPIENT}, ann@example.org".encode(),
        ),
        "failed",
        "behind",
        "5.1.1",
    ),
    Shape(
        "nobody is named",
        dsn("Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 User unknown"),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "the status alone, of a server that knows its mailboxes",
        dsn(f"{_FINAL}Action: failed\nStatus: 5.1.1"),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "the status alone, about another server",
        dsn(f"{_FINAL}Action: failed\nStatus: 5.1.1\nRemote-MTA: dns; mx.example.net"),
        "failed",
        "soft",
        "5.1.1",
    ),
    Shape(
        "an address in xtext",
        dsn(
            "Original-Recipient: rfc822;zoe+40example.net\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 User unknown"
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "in upper case, in brackets, with a dot",
        dsn(
            "Final-Recipient: RFC822; <ZOE@EXAMPLE.NET.>\nAction: FAILED\nStatus: 5.1.1\nDiagnostic-Code: SMTP; 550 5.1.1 USER UNKNOWN"
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
]

BROKEN = [
    Shape(
        "unindented continuation",
        dsn(
            f"Diagnostic-Code: smtp; 550-first line of the answer\n550 5.1.1 user unknown\nStatus: 5.1.1\nAction: failed\nFinal-Recipient: rfc822; {RECIPIENT}"
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "status in base64",
        failed("5.1.1", "smtp; 550 5.1.1 user unknown")
        .replace(
            b"Content-Type: message/delivery-status\n\nReporting-MTA: dns; relay.example.com\n\n",
            b"Content-Type: message/delivery-status\nContent-Transfer-Encoding: base64\n\n@@",
        )
        .replace(
            b"@@"
            + failed("5.1.1", "smtp; 550 5.1.1 user unknown")
            .split(b"relay.example.com\n\n", 1)[1]
            .split(b"\n\n--b1", 1)[0],
            base64.encodebytes(
                failed("5.1.1", "smtp; 550 5.1.1 user unknown")
                .split(b"relay.example.com\n\n", 1)[1]
                .split(b"\n\n--b1", 1)[0]
            ),
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "status in a charset that it is not in",
        failed("5.1.1", "smtp; 550 5.1.1 user unknown").replace(
            b"message/delivery-status\n", b'message/delivery-status; charset="utf-16"\n'
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "a boundary that does not come",
        failed("5.1.1", "smtp; 550 5.1.1 user unknown").replace(b'boundary="b1"', b'boundary="other"'),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "no boundary",
        failed("5.1.1", "smtp; 550 5.1.1 user unknown").replace(b'; boundary="b1"', b""),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "no MIME header at all",
        failed("5.1.1", "smtp; 550 5.1.1 user unknown")
        .replace(b"MIME-Version: 1.0\n", b"")
        .replace(b'Content-Type: multipart/report; report-type=delivery-status; boundary="b1"\n', b""),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "only CR", failed("5.1.1", "smtp; 550 5.1.1 user unknown").replace(b"\n", b"\r"), "failed", "dead", "5.1.1"
    ),
    Shape(
        "CR CR LF",
        failed("5.1.1", "smtp; 550 5.1.1 user unknown").replace(b"\n", b"\r\r\n"),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "CRLF and LF",
        failed("5.1.1", "smtp; 550 5.1.1 user unknown").replace(b"\n", b"\r\n", 20),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "no blank lines between the groups",
        dsn(f"{_FINAL}Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 no such user").replace(
            b"relay.example.com\n\nFinal", b"relay.example.com\nFinal"
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "blank lines between the fields",
        dsn(
            f"Final-Recipient: rfc822; {RECIPIENT}\n\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 no such user"
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "behind a large part",
        failed(
            "5.1.1",
            "smtp; 550 5.1.1 user unknown",
            "An explanation.\n" + "x" * 70 + "\n" + ("y" * 76 + "\n") * 5000,
        ),
        "failed",
        "dead",
        "5.1.1",
    ),
    Shape(
        "an alias, delivered to one and failed for another",
        dsn(
            f"Original-Recipient: rfc822; {RECIPIENT}\nFinal-Recipient: rfc822; one@inside.example.net\nAction: delivered\nStatus: 2.0.0\n\nOriginal-Recipient: rfc822; {RECIPIENT}\nFinal-Recipient: rfc822; two@inside.example.net\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 unknown"
        ),
        "delivered",
    ),
    Shape(
        "an alias with two dead members",
        dsn(
            f"Original-Recipient: rfc822; {RECIPIENT}\nFinal-Recipient: rfc822; one@inside.example.net\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 unknown user\n\nOriginal-Recipient: rfc822; {RECIPIENT}\nFinal-Recipient: rfc822; two@inside.example.net\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 unknown user"
        ),
        "failed",
        "behind",
        "5.1.1",
    ),
    Shape(
        "an alias with a full member",
        dsn(
            f"Original-Recipient: rfc822; {RECIPIENT}\nFinal-Recipient: rfc822; one@inside.example.net\nAction: failed\nStatus: 5.2.2\nDiagnostic-Code: smtp; 552 5.2.2 mailbox full"
        ),
        "failed",
        "behind",
        "5.2.2",
    ),
]

NO_REPORTS = [
    Shape(
        "given back in words that nobody knows",
        text(
            f"Meddelandet till {RECIPIENT} kunde inte levereras. Mottagaren finns inte.",
            "E-postsystem <noreply@mx.example.org>",
            "Kunde inte leverera meddelandet",
            more="Auto-Submitted: auto-replied",
        ),
        "unread",
    ),
    Shape(
        "held, in English",
        text(
            f"Your message to {RECIPIENT} is held.",
            "Mailguard <guard@mx.example.org>",
            "Message quarantined",
            more="Auto-Submitted: auto-generated",
        ),
        "unread",
    ),
    Shape(
        "out of office",
        f"From: Zoe <{RECIPIENT}>\nTo: {RETURN_PATH}\nSubject: Automatic reply: Your order\nAuto-Submitted: auto-replied\n\nI am away until Monday. Write to <ann@example.net>: she knows.\n".encode(),
        "reply",
    ),
    Shape(
        "out of office, by its subject alone",
        f"From: Zoe <{RECIPIENT}>\nTo: {RETURN_PATH}\nSubject: Abwesenheitsnotiz: Your order\n\nIch bin bis Montag nicht erreichbar.\n".encode(),
        "reply",
    ),
    Shape(
        "out of office that talks of mailboxes",
        f"From: Zoe <{RECIPIENT}>\nTo: {RETURN_PATH}\nSubject: Out of Office\nX-Autoreply: yes\nPrecedence: auto_reply\n\nThis mailbox is no longer monitored, my account will be disabled.\n".encode(),
        "reply",
    ),
    Shape(
        "read receipt",
        f"From: Zoe <{RECIPIENT}>\nTo: {RETURN_PATH}\nSubject: Read: Your order\nMIME-Version: 1.0\nContent-Type: multipart/report; report-type=disposition-notification; boundary=b\n\n--b\nContent-Type: text/plain\n\nYour message was read.\n\n--b\nContent-Type: message/disposition-notification\n\nFinal-Recipient: rfc822; {RECIPIENT}\nDisposition: manual-action/MDN-sent-manually; displayed\n\n--b--\n".encode(),
        "reply",
    ),
    Shape(
        "challenge",
        f"From: Challenge <confirm@challenge.example>\nTo: {RETURN_PATH}\nSubject: Please confirm your message\nAuto-Submitted: auto-replied\n\nTo have your message accepted click the link.\n".encode(),
        "reply",
    ),
    Shape(
        "a person answers",
        f"From: Zoe <{RECIPIENT}>\nTo: {RETURN_PATH}\nSubject: Re: Your order\n\nThank you! The 550 g parcel did not arrive yet, and my mailbox was full.\n".encode(),
        "unread",
    ),
    Shape(
        "spam about a mailbox that is full",
        f"From: Mail Administrator <admin@spam.example>\nTo: {RETURN_PATH}\nSubject: Your mailbox is full\n\nYour mailbox is almost full. Log in to get more space: http://spam.example\n".encode(),
        "unread",
    ),
    Shape(
        "a newsletter",
        f"From: News <news@news.example>\nTo: {RETURN_PATH}\nSubject: This week\nList-Unsubscribe: <https://news.example/u>\n\nFive hundred things. Not delivered by post: 500 users wrote.\n".encode(),
        "unread",
    ),
    Shape(
        "somebody else's report, forwarded",
        f"From: Zoe <{RECIPIENT}>\nTo: {RETURN_PATH}\nSubject: what is this?\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=outer\n\n--outer\nContent-Type: text/plain\n\nI got this.\n\n--outer\nContent-Type: message/rfc822\n\n".encode()
        + failed("5.1.1", "smtp; 550 5.1.1 User unknown").replace(RECIPIENT.encode(), b"ann@example.org")
        + b"\n--outer--\n",
        "unread",
    ),
    Shape("praise", complaint("Feedback-Type: not-spam\nVersion: 0.1"), "unread"),
    Shape("nothing", b"", "unread"),
    Shape("no mail at all", b"\xff\xfe\x00 not a mail", "unread"),
]

_SENDER_WORDS = (
    "Unknown user (sender)", "From address unknown", "Originator unknown, user does not exist",
    "Return address rejected: user unknown", "Envelope from: no such user", "MAIL FROM user unknown",
    "Callback setup failed while verifying: user unknown", "User unknown: shop=40example.com",
    "shop @ example.com User unknown", "L'adresse de l'émetteur n'existe pas", "Dirección del remitente desconocida",
    "Indirizzo del mittente inesistente", "Endereço do remetente não existe", "Adres van de afzender bestaat niet",
    "Adres nadawcy nie istnieje", "Gönderen adres bulunamadı", "送信者のメールアドレスが存在しません",
    "Адреса відправника не існує", "发信人地址不存在", "寄件者帳號不存在",
)  # fmt: skip
_DOUBTFUL_WORDS = (
    "Recipient address rejected: Address verification in progress", "Recipient unknown due to temporary LDAP failure",
    "Mailbox not found; directory lookup temporarily unavailable", "Das Postfach hat sein Speicherlimit erreicht",
    "収信箱がいっぱいです", "受信箱がいっぱいです", "Nachricht wegen Spamverdacht abgelehnt",
    "Message refusé: contenu indésirable", "Bad DNS PTR resource record, user unknown", "storage limit reached",
    "user unknown; your IP is listed at spamhaus", "찾을 수 없음 메일함 용량 초과",
)  # fmt: skip
WORDS = [
    *(
        Shape(f"sender: {words}", failed("5.1.1", f"smtp; 550 5.1.1 {words}"), "failed", "none", "5.1.1")
        for words in _SENDER_WORDS
    ),
    *(
        Shape(f"doubt: {words}", failed("5.1.1", f"smtp; 550 5.1.1 {words}"), "failed", "soft", "5.1.1")
        for words in _DOUBTFUL_WORDS
    ),
]
_HIDDEN = f"    an undisclosed address\n    (generated from {RECIPIENT})\n    550 5.1.1 user unknown"
_CHILD = "    SMTP error from remote mail server after RCPT TO:<zoe@fwd.example>:\n    550 5.1.1 user unknown"
_DEAD = f"{_FINAL}Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 user unknown\n"
BEHIND = [
    Shape("exim, a hidden child", exim(_HIDDEN), "failed", "behind", "5.1.1"),
    Shape("exim, a child in RCPT TO", exim(_CHILD), "failed", "behind", "5.1.1"),
    Shape(
        "sendmail, an actual recipient",
        dsn(f"{_DEAD}X-Actual-Recipient: rfc822; zoe@fwd.example"),
        "failed",
        "behind",
        "5.1.1",
    ),
    Shape(
        "relayed beside failed",
        dsn(f"{_DEAD}\n{_FINAL}Action: relayed\nStatus: 2.0.0"),
        "failed",
        "behind",
        "5.1.1",
    ),
    Shape(
        "delayed beside failed",
        dsn(f"{_DEAD}\n{_FINAL}Action: delayed\nStatus: 4.4.1"),
        "failed",
        "behind",
        "5.1.1",
    ),
]

SHAPES = [
    *WORDS,
    *BEHIND,
    *POSTFIX,
    *EXIM,
    *SENDMAIL,
    *QMAIL,
    *MICROSOFT,
    *GMAIL,
    *YAHOO_AOL,
    *GATEWAYS,
    *SERVICES,
    *EUROPE_ASIA,
    *SECOND_LOOKS,
    *BROKEN,
    *NO_REPORTS,
]
