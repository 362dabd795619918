"""SMS per second to a Twilio that takes 150 ms for each, as the real one does."""

from __future__ import annotations

from bench.service import Notifier
from bench.sinks import Sink, slow_twilio
from bench.subjects import Ground, Task
from bench.throughput import Rates, Say, other_pids, work_off
from notifier.dev.twilio_server import ACCOUNT_SID, AUTH_TOKEN
from notifier.domain.statuses import Channel

DELAY_SECONDS = 0.15
_GUESS = 500.0
_LEAST = 40


def settings(twilio: Sink) -> dict[str, str]:
    """Settings of the provider that calls it."""
    return {
        "NOTIFIER_TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "NOTIFIER_TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        "NOTIFIER_TWILIO_API_BASE": f"http://127.0.0.1:{twilio.port}",
    }


def measure(ground: Ground, *, rounds: int, seconds: float, say: Say) -> Rates:
    """The service with its default settings."""
    found = Rates()
    for number in range(rounds):
        rate = found.rate if found.measurements else _GUESS
        with slow_twilio(ground.folder, delay_seconds=DELAY_SECONDS) as twilio:
            subject = Notifier(channel=Channel.SMS, environment=settings(twilio))
            with subject.running(ground, Task(smtp_port=9)) as run:
                work_off(run, twilio, max(_LEAST, round(rate / 2)), patience_seconds=60)
                run.hold()
                ground.postgres.checkpoint()
                count = max(_LEAST, round(rate * seconds))
                others = other_pids(ground, twilio)
                one = work_off(run, twilio, count, patience_seconds=3 * seconds + 10, others=others)
        found.measurements.append(one)
        say(f"  round {number + 1}: {one.rate:.0f}/s, {one.mails} in {one.seconds:.1f} s")
    return found
