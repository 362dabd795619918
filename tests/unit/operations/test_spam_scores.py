"""What SpamAssassin prints about several mails, read. `make spam-check` runs the program."""

from __future__ import annotations

from notifier.operations.spam_scores import SpamRule, parse_reports

PRINTED = """\
X-Spam-Status: No, score=1.5 required=5.0 tests=FONT_INVIS_MSGID,SUBJ_ALL_CAPS
Subject: 2.0 OFF

A mail that says 1.0 POINT_LESS in its text.

NOTIFIER-SCORE 1.5
 0.5 SUBJ_ALL_CAPS          Subject is all capitals
 0.0 HTML_MESSAGE           BODY: HTML included in message
 1.0 FONT_INVIS_MSGID       Invisible text and a message ID that
                            many senders of spam use
-0.0 NO_RELAYS              Informational: message was not relayed via SMTP

X-Spam-Status: No, score=-0.0 required=5.0 tests=NO_RELAYS
Subject: fine

 3.0 SAID_BY_THE_MAIL  itself

NOTIFIER-SCORE -0.0
-0.0 NO_RELAYS              Informational: message was not relayed via SMTP
"""


def test_each_mail_has_its_score_and_the_rules_that_add_points() -> None:
    first, second = parse_reports(PRINTED)
    invisible = "Invisible text and a message ID that many senders of spam use"
    assert first == (
        1.5,
        (
            SpamRule("FONT_INVIS_MSGID", 1.0, invisible),
            SpamRule("SUBJ_ALL_CAPS", 0.5, "Subject is all capitals"),
        ),
    )
    assert second == (0.0, ())
    assert str(second[0]) == "0.0"
