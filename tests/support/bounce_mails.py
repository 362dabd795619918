"""Mails that come back, as real servers write them, with names and addresses replaced by reserved ones.

`{to}` is the return path to which the bounce is sent, `{id}` the Message-ID of the returned mail.
"""

from __future__ import annotations

_RETURNED = """From: Shop <shop@example.com>
To: zoe@example.net
Subject: Your order
Message-ID: <{id}>

"""

POSTFIX = (
    """Return-Path: <>
Date: Mon, 23 Nov 2026 10:00:02 +0000 (UTC)
From: MAILER-DAEMON@relay.example.com (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: {to}
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="4F1A2.1795/relay.example.com"
Message-Id: <20261123100002.9@relay.example.com>

This is a MIME-encapsulated message.

--4F1A2.1795/relay.example.com
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

This is the mail system at host relay.example.com.

<zoe@example.net>: host mx.example.net[192.0.2.25] said: 550 5.1.1
    <zoe@example.net>: Recipient address rejected: User unknown (in reply to
    RCPT TO command)

--4F1A2.1795/relay.example.com
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example.com
X-Postfix-Queue-ID: 4F1A2
X-Postfix-Sender: rfc822; {to}
Arrival-Date: Mon, 23 Nov 2026 10:00:01 +0000 (UTC)

Final-Recipient: rfc822; zoe@example.net
Original-Recipient: rfc822;zoe@example.net
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.net
Diagnostic-Code: smtp; 550 5.1.1 <zoe@example.net>: Recipient address rejected:
    User unknown

--4F1A2.1795/relay.example.com
Content-Description: Undelivered Message
Content-Type: message/rfc822

"""
    + _RETURNED
    + """Hello
--4F1A2.1795/relay.example.com--
"""
)

POSTFIX_DELAYED = (
    POSTFIX.replace("Action: failed", "Action: delayed")
    .replace("Status: 5.1.1", "Status: 4.4.1\nWill-Retry-Until: Sat, 28 Nov 2026 10:00:01 +0000 (UTC)")
    .replace(
        "smtp; 550 5.1.1 <zoe@example.net>: Recipient address rejected:\n    User unknown",
        "X-Postfix; connect to mx.example.net[192.0.2.25]:25:\n    Connection timed out",
    )
)

POSTFIX_FULL = (
    POSTFIX.replace("Status: 5.1.1", "Status: 5.2.2")
    .replace("550 5.1.1 <zoe@example.net>: Recipient address rejected:\n    User unknown", "552 5.2.2 Over quota")
    .replace("said: 550 5.1.1", "said: 552 5.2.2")
)

POSTFIX_EXPIRED = POSTFIX_DELAYED.replace("Action: delayed", "Action: failed")

#: Exim's Status says nothing useful, and its Diagnostic-Code has several lines.
EXIM = (
    """X-Failed-Recipients: zoe@example.net
Auto-Submitted: auto-replied
From: Mail Delivery System <Mailer-Daemon@exim.example.com>
To: {to}
Content-Type: multipart/report; report-type=delivery-status; boundary=1795427-eximdsn-1804289383
MIME-Version: 1.0
Subject: Mail delivery failed: returning message to sender

--1795427-eximdsn-1804289383
Content-type: text/plain; charset=us-ascii

This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  zoe@example.net
    host mx.example.net [192.0.2.25]
    SMTP error from remote mail server after RCPT TO:<zoe@example.net>:
    550 5.1.1 <zoe@example.net> User doesn't exist

--1795427-eximdsn-1804289383
Content-type: message/delivery-status

Reporting-MTA: dns; exim.example.com

Action: failed
Final-Recipient: rfc822;zoe@example.net
Status: 5.0.0
Remote-MTA: dns; mx.example.net
Diagnostic-Code: smtp; 550-5.1.1 <zoe@example.net> User doesn't exist,
 550 5.1.1 look for another

--1795427-eximdsn-1804289383
Content-type: message/rfc822

"""
    + _RETURNED
    + """--1795427-eximdsn-1804289383--
"""
)

EXCHANGE = (
    """From: <postmaster@exchange.example.com>
To: <{to}>
Date: Mon, 23 Nov 2026 10:00:02 +0000
Content-Type: multipart/report; report-type=delivery-status;
 boundary="9B095B5ADSN=_01DC5A2EXCH"
X-MS-Exchange-Message-Is-Ndr:
Subject: Undeliverable: Your order
Auto-Submitted: auto-replied
MIME-Version: 1.0

--9B095B5ADSN=_01DC5A2EXCH
Content-Type: multipart/alternative; boundary="inner"

--inner
Content-Type: text/plain; charset="us-ascii"
Content-Transfer-Encoding: quoted-printable

Your message to zoe@example.net couldn't be delivered.

--inner
Content-Type: text/html; charset="us-ascii"

<p>Your message to zoe@example.net couldn't be delivered.</p>
--inner--

--9B095B5ADSN=_01DC5A2EXCH
Content-Type: message/delivery-status

Reporting-MTA: dns;EXCH01.exchange.example.com
Received-From-MTA: dns;relay.example.com
Arrival-Date: Mon, 23 Nov 2026 10:00:01 +0000

Final-Recipient: rfc822;zoe@example.net
Action: failed
Status: 5.1.10
Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient zoe@example.net not
 found by SMTP address lookup

--9B095B5ADSN=_01DC5A2EXCH
Content-Type: text/rfc822-headers

"""
    + _RETURNED
    + """--9B095B5ADSN=_01DC5A2EXCH--
"""
)

#: Exchange Online, in front of a server that said something else.
EXCHANGE_WRAPPED = EXCHANGE.replace(
    "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient zoe@example.net not\n found by SMTP address lookup",
    "5.0.350 Remote server returned an error -> 550 5.2.1 Mailbox disabled",
).replace("Status: 5.1.10", "Status: 5.0.350")

GMAIL = (
    """From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>
To: {to}
Auto-Submitted: auto-replied
Subject: Delivery Status Notification (Failure)
X-Failed-Recipients: zoe@example.net
Content-Type: multipart/report; boundary="000000000000f0a5"; report-type=delivery-status

--000000000000f0a5
Content-Type: multipart/related; boundary="000000000000f0a6"

--000000000000f0a6
Content-Type: text/plain; charset="UTF-8"

** Address not found **

Your message wasn't delivered to zoe@example.net because the address couldn't be found.

--000000000000f0a6--

--000000000000f0a5
Content-Type: message/delivery-status

Reporting-MTA: dns; googlemail.com
Arrival-Date: Mon, 23 Nov 2026 02:00:01 -0800 (PST)
X-Original-Message-ID: <{id}>

Final-Recipient: rfc822; zoe@example.net
Action: failed
Status: 5.1.1
Remote-MTA: dns; gmail-smtp-in.l.google.com. (2001:db8::1a, the server for the domain example.net.)
Diagnostic-Code: smtp; 550-5.1.1 The email account that you tried to reach does not exist. Please try
 550-5.1.1 double-checking the recipient's email address for typos or
 550 5.1.1 unnecessary spaces. For more information, go to https://support.google.com/mail/?p=NoSuchUser
Last-Attempt-Date: {date}

--000000000000f0a5
Content-Type: message/rfc822

"""
    + _RETURNED
    + """--000000000000f0a5--
"""
)

#: Not MIME at all: http://cr.yp.to/proto/qsbmf.txt
QMAIL = (
    """Date: 23 Nov 2026 10:00:02 -0000
From: MAILER-DAEMON@qmail.example.com
To: {to}
Subject: failure notice

Hi. This is the qmail-send program at qmail.example.com.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<zoe@example.net>:
192.0.2.25 does not like recipient.
Remote host said: 550 5.1.1 no mailbox here by that name
Giving up on 192.0.2.25.

--- Below this line is a copy of the message.

"""
    + _RETURNED
)

#: The same server about its own mailbox: the code is in brackets.
QMAIL_LOCAL = QMAIL.replace(
    """192.0.2.25 does not like recipient.
Remote host said: 550 5.1.1 no mailbox here by that name
Giving up on 192.0.2.25.
""",
    "Sorry, no mailbox here by that name. (#5.1.1)\n",
)

COMPLAINT = (
    """From: <complaints@isp.example>
Date: Mon, 23 Nov 2026 10:00:02 +0000
Subject: FW: This week
To: <bounces@example.com>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report;
 boundary="part1_13d.2e68ed54_boundary"

--part1_13d.2e68ed54_boundary
Content-Type: text/plain; charset="US-ASCII"

This is an email abuse report for an email message received from IP
192.0.2.1 on Mon, 23 Nov 2026 09:00:00 +0000.

--part1_13d.2e68ed54_boundary
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: SomeGenerator/1.0
Version: 1
Original-Mail-From: <{path}>
Original-Rcpt-To: <{recipient}>
Arrival-Date: Mon, 23 Nov 2026 09:00:00 +0000
Source-IP: 192.0.2.1

--part1_13d.2e68ed54_boundary
Content-Type: message/rfc822
Content-Disposition: inline

"""
    + _RETURNED
    + """--part1_13d.2e68ed54_boundary--
"""
)

OUT_OF_OFFICE = """From: Zoe <zoe@example.net>
To: {to}
Subject: Automatic reply: Your order
Auto-Submitted: auto-replied

I am away until Monday. In urgent cases write to <ann@example.net>: she knows.
"""
