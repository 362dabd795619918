"""Faults of the providers, and of the producers' endpoint.

The rules apply to one in so many recipients, once for each recipient unless stated otherwise.
"""

from __future__ import annotations

from chaos.faults import Fault
from chaos.world import World
from notifier.dev.smtp_faults import Rule
from notifier.dev.twilio_faults import TwilioRule

#: The last digit of a number, and `bN` in an address, spread recipients over ten buckets.
_TWO_MAILS, _NEXT_MAILS, _MOST_MAILS = "*.b[01]@*", "*.b[23]@*", "*.b[0-6]@*"
_TWO_SMS, _NEXT_SMS, _MOST_SMS = "*[01]", "*[23]", "*[0-6]"


def misbehave(mail: list[Rule], sms: list[TwilioRule], seconds: float) -> Fault:
    """Both providers follow these rules for this time."""

    def fault(world: World) -> None:
        for rule in mail:
            world.providers.mail_faults.add(rule)
        for sms_rule in sms:
            world.providers.sms_faults.add(sms_rule)
        world.pause(seconds)

    return fault


def silent(seconds: float) -> Fault:
    """No answer: to RCPT, to a whole mail, to a POST."""
    return misbehave(
        [
            Rule(_TWO_MAILS, stage="rcpt", action="silent", times=1),
            Rule("*.b2@*", stage="body", action="silent", times=1),
        ],
        [TwilioRule(_TWO_SMS, action="silent", times=1)],
        seconds,
    )


def dripping(seconds: float) -> Fault:
    """Answers come a byte at a time, too slowly for any time limit."""
    rules = misbehave([], [TwilioRule(_TWO_SMS, action="drip", times=1)], seconds)

    def fault(world: World) -> None:
        world.mail_link.bytes_per_second = 150
        world.strike()
        rules(world)

    return fault


def closing_mid_data(seconds: float) -> Fault:
    """The connection closes while the mail is being sent, or while Twilio's answer arrives."""
    return misbehave(
        [Rule(_MOST_MAILS, stage="body", action="close_mid_data", times=1)],
        [TwilioRule(_MOST_SMS, action="truncate", times=1)],
        seconds,
    )


def closing_after_data(seconds: float) -> Fault:
    """The provider accepts the message, and closes the connection instead of answering."""
    return misbehave(
        [Rule(_MOST_MAILS, stage="body", action="close_before_reply", times=1)],
        [TwilioRule(_MOST_SMS, action="close", times=1)],
        seconds,
    )


def refusing(seconds: float) -> Fault:
    """Permanent refusals: 5xx at RCPT and after the data, and Twilio's 400 and 500."""
    return misbehave(
        [
            Rule(_TWO_MAILS, reply="550 5.1.1 no such user"),
            Rule(_NEXT_MAILS, stage="body", reply="554 5.7.1 refused"),
        ],
        [
            TwilioRule(_TWO_SMS, status=400, code=21211, message="Invalid 'To' Phone Number"),
            TwilioRule(_NEXT_SMS, status=500, code=20500, times=1),
        ],
        seconds,
    )


def refusing_for_now(seconds: float) -> Fault:
    """Temporary refusals: 421, 451, 452 and 429."""
    return misbehave(
        [
            Rule(_TWO_MAILS, reply="451 4.3.0 try later", times=2),
            Rule(_NEXT_MAILS, stage="body", reply="452 4.3.1 insufficient system storage", times=1),
            Rule("*.b[45]@*", reply="421 4.3.2 closing", times=1),
        ],
        [
            TwilioRule(_MOST_SMS, status=429, code=20429, message="Too Many Requests", times=1),
            TwilioRule("*7", status=429, code=20429, headers={"Retry-After": "2"}, times=1),
        ],
        seconds,
    )


def taking_few_connections(seconds: float) -> Fault:
    """The mail server comes back with room for two connections, and answers all others with a 421."""

    def fault(world: World) -> None:
        world.providers.mail.max_connections = 2
        world.providers.mail.drop_connections_threadsafe()
        world.pause(seconds)

    return fault


def refusing_callbacks(seconds: float) -> Fault:
    """The producers' endpoint answers 503 to every callback."""

    def fault(world: World) -> None:
        world.endpoint.refuse(on=True)
        world.pause(seconds)
        world.endpoint.refuse(on=False)

    return fault
