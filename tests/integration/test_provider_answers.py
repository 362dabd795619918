"""What an answer of a provider is about, on real servers: who goes on, who waits, who fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.config.settings import Settings
from notifier.config.structure import ProviderTable, Sender, Structure
from notifier.delivery import CircuitBreaker, Deliverer
from notifier.delivery.prepare import Composer
from notifier.delivery.provider_calls import ProviderCaller
from notifier.delivery.rate_limiter import RateLimiter
from notifier.delivery.results import Results
from notifier.dev.smtp_server import MailServer, Rule, running_mail_server
from notifier.dev.twilio_server import TwilioRule, TwilioServer, running_twilio_server
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane, OnUnknown, Reason
from notifier.domain.validation import check
from notifier.operations.providers import ProviderOperations
from notifier.providers.base import Provider
from notifier.providers.smtp.provider import SmtpProvider
from notifier.providers.twilio.provider import TwilioProvider
from notifier.rendering import Renderer
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import Tokens
from notifier.store.attachments import AttachmentRepository
from notifier.store.circuits import CircuitKey, CircuitRepository
from notifier.store.engine import transaction
from notifier.store.ledger import Ledger
from notifier.store.operator_actions import OperatorActions
from notifier.store.provider_health import HealthRepository
from notifier.store.rate_limits import RateLimitRepository
from notifier.store.records import NewNotification
from notifier.store.search import Audit, NotificationView
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until

SENDERS = {
    "default": Sender(email="Shop <shop@example.com>", sms="+15005550006"),
    "news": Sender(email="news@example.net", sms="+15005550001"),
    "odd": Sender(email="odd@example.org", sms="+15005550007"),
}
TABLES = (ProviderTable(name="relay", kind="smtp"), ProviderTable(name="text", kind="twilio"))


@dataclass
class Desk:
    engine: Engine
    templates: Path
    loop: asyncio.AbstractEventLoop
    mail: MailServer
    twilio: TwilioServer
    #: A second relay.
    other: MailServer | None = None
    providers: dict[str, Provider] = field(default_factory=dict)
    configured: dict[Channel, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger, self.audit = Ledger(self.engine), Audit(self.engine)
        self.circuits = CircuitRepository(self.engine)
        sms = {
            "account_sid": self.twilio.account_sid,
            "auth_token": self.twilio.auth_token,
            "api_base": self.twilio.url,
        }
        self.add(SmtpProvider.from_options("relay", {"url": f"smtp://127.0.0.1:{self.mail.port}"}))
        if self.other is not None:
            self.add(SmtpProvider.from_options("other", {"url": f"smtp://127.0.0.1:{self.other.port}"}))
        self.add(TwilioProvider.from_options("text", sms))
        settings = Settings().model_copy(update={"structure": Structure(senders=SENDERS)})
        key = HashKey()
        composer = Composer(
            Renderer(self.templates), settings, key, Tokens(key), AttachmentRepository(self.engine)
        )
        breaker = CircuitBreaker(
            HealthRepository(self.engine), self.circuits, self.configured, {}, deadline_seconds=10
        )
        limiter = RateLimiter(RateLimitRepository(self.engine), settings)
        caller = ProviderCaller(self.loop, self.providers, limiter, slots=50, deadline_seconds=10)
        results = Results(settings, self.providers, key)
        self.deliverer = Deliverer(self.ledger, composer, breaker, caller, results, settings)
        operator_actions = OperatorActions(self.engine, key)
        self.steering = ProviderOperations(HealthRepository(self.engine), self.circuits, operator_actions, TABLES)

    def add(self, provider: Provider) -> None:
        self.providers[provider.name] = provider
        self.configured.setdefault(provider.channel, []).append(provider.name)

    def close(self) -> None:
        for provider in self.providers.values():
            asyncio.run_coroutine_threadsafe(provider.close(), self.loop).result(patient(10))

    def accept(self, to: str, lane: Lane = Lane.NORMAL, **fields: Any) -> UUID:
        channel = Channel.EMAIL if "@" in to else Channel.SMS
        message = Message(
            idempotency_key=fields.pop("key", to),
            producer="shop",
            to=to,
            template="hello" if channel is Channel.EMAIL else "code",
            context={"name": "Ann"} if channel is Channel.EMAIL else {"code": "123456"},
            **fields,
        )
        new = NewNotification(check(message, channel, lane), channel, lane, "v1", OnUnknown.HOLD, 0)
        return self.ledger.accept([new])[0].id

    def send(self, *to: str, **fields: Any) -> list[NotificationView]:
        ids = [self.accept(one, **fields) for one in to]
        self.deliver(ids)
        return [self.note(id_) for id_ in ids]

    def deliver(self, ids: Sequence[UUID]) -> None:
        self.deliverer.deliver(ids)

    def go_on(self, *ids: UUID) -> None:
        """What waits is due; no pause of a circuit is over."""
        with transaction(self.engine) as connection:
            connection.execute(text("UPDATE states SET due_at = now() WHERE due_at IS NOT NULL"))
        self.ledger.take_due(limit=1000, unknown_after_seconds=30)
        self.deliver(ids)

    def end_pauses(self, seconds_ago: float = 1.0) -> None:
        statement = text(
            "UPDATE circuits SET open_until = now() - make_interval(secs => :ago) WHERE open_until IS NOT NULL"
        )
        with transaction(self.engine) as connection:
            connection.execute(statement, {"ago": seconds_ago})

    def age(self, seconds: float) -> None:
        """As if everything had been accepted so long ago."""
        statement = text("UPDATE messages SET accepted_at = accepted_at - make_interval(secs => :ago)")
        with transaction(self.engine) as connection:
            connection.execute(statement, {"ago": seconds})

    def note(self, id_: UUID) -> NotificationView:
        return self.audit.story(id_).notification

    def calls(self, *ids: UUID) -> int:
        return sum(len(self.audit.story(id_).attempts) for id_ in ids)

    def open_circuit(self, provider: str, seconds: float = 663.0, *, by: UUID | None = None) -> None:
        reason = Reason.PROVIDER_ACCOUNT
        self.circuits.open(CircuitKey(provider), seconds, reason, "no credit", by=by, again=False)

    def opened(self) -> list[tuple[str, str]]:
        return [
            (state.key.provider, state.key.sender)
            for state in self.circuits.states()
            if state.open_for_seconds is not None
        ]


@pytest.fixture
def desk(engine: Engine, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Iterator[Desk]:
    with running_mail_server() as mail, running_twilio_server() as twilio:
        desk = Desk(engine, write_templates(tmp_path / "templates"), loop, mail, twilio)
        yield desk
        desk.close()


@pytest.fixture
def two_relays(engine: Engine, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Iterator[Desk]:
    with running_mail_server() as mail, running_mail_server() as other, running_twilio_server() as twilio:
        desk = Desk(engine, write_templates(tmp_path / "templates"), loop, mail, twilio, other)
        yield desk
        desk.close()


NUMBERS = [f"+155501001{n:02}" for n in range(5)]
PEOPLE = [f"user{n}@example.com" for n in range(5)]


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        (21408, "failed", "destination_refused"),
        (21612, "failed", "destination_refused"),
        (21608, "failed", "provider_rejected"),
        (21606, "retrying", "sender_refused"),
        (21211, "failed", "invalid_recipient"),
        (30007, "failed", "content_refused"),
    ],
)
def test_a_number_that_twilio_refuses_stops_no_other(desk: Desk, code: int, status: str, reason: str) -> None:
    desk.twilio.faults.add(TwilioRule("+447700900123", status=400, code=code, message="no"))
    for again in ("a", "b"):
        [foreign] = desk.send("+447700900123", key=f"foreign {again}")
        # Whoever does not exist is not even called again.
        assert (foreign.status, foreign.reason) in ((status, reason), ("suppressed", "invalid_recipient"))
        assert {note.status for note in desk.send(*(f"{n[:-1]}{again == 'b':d}" for n in NUMBERS))} == {"sent"}
    assert desk.opened() == []


def test_a_refused_country_is_named_and_the_number_is_not(desk: Desk) -> None:
    rule = TwilioRule("+44*", status=400, code=21408, message="Permission for +447700900123 is not enabled")
    desk.twilio.faults.add(rule)
    [note] = desk.send("+447700900123")
    assert note.detail == "country code +44: Permission for ***23 is not enabled"
    [attempt] = desk.audit.story(note.id).attempts
    assert (attempt.outcome, attempt.subject) == ("rejected", "destination")


def test_a_sender_that_a_provider_refuses_is_held_back_and_no_other(desk: Desk) -> None:
    refused = [note.id for note in desk.send(*NUMBERS[:3], sender="news")]
    assert {desk.note(id_).reason for id_ in refused} == {"sender_refused"}
    assert desk.opened() == [("text", "news")]
    waiting = [note.id for note in desk.send(*NUMBERS[3:], sender="news")]
    assert desk.calls(*waiting) == 0
    assert {desk.note(id_).reason for id_ in waiting} == {"sender_refused"}
    assert {note.status for note in desk.send("+15550100200", "+15550100201")} == {"sent"}
    [view] = [view for view in desk.steering.providers() if view.name == "text"]
    assert (view.state, [(one.sender, one.state, one.refusals) for one in view.senders]) == (
        "in use",
        [("news", "held back", 3)],
    )
    [circuit] = desk.steering.open_circuits()
    assert (circuit.cause, circuit.provider, circuit.sender) == ("sender_held", "text", "news")
    assert (circuit.waiting, circuit.producers, circuit.channel) == (5, ("shop",), "sms")


def test_one_message_at_a_time_finds_out_that_a_sender_is_accepted_again(desk: Desk) -> None:
    desk.mail.faults.add(Rule("news@*", reply="553 5.7.1 not owned by user", stage="mail"))
    ids = [note.id for note in desk.send(*PEOPLE, sender="news")]
    assert desk.opened() == [("relay", "news")]
    before = desk.calls(*ids)
    # All of them were tried: first, a fresh one may come.
    desk.end_pauses()
    desk.go_on(*ids)
    assert desk.calls(*ids) == before
    desk.end_pauses(100)
    desk.go_on(*ids)
    assert desk.calls(*ids) == before + 1
    desk.end_pauses(100)
    desk.mail.faults.clear()
    desk.go_on(*ids)
    assert desk.calls(*ids) == before + 2
    assert desk.opened() == []
    desk.go_on(*ids)
    assert {desk.note(id_).status for id_ in ids} == {"sent"}


def test_a_probe_of_one_sender_that_fails_stops_no_other(desk: Desk) -> None:
    desk.mail.faults.add(Rule("news@*", reply="553 5.7.1 not owned by user", stage="mail"))
    ids = [note.id for note in desk.send(*PEOPLE[:3], sender="news")]
    desk.end_pauses()
    desk.mail.faults.add(Rule("news@*", action="close_before_reply", stage="mail"))
    desk.go_on(*ids)
    assert desk.opened() == [("relay", "news")]
    assert {note.status for note in desk.send(*PEOPLE[3:])} == {"sent"}


POLICY = "550 5.7.1 sender domain blocked by our policy"


def test_one_domain_that_refuses_a_sender_holds_back_nobody(desk: Desk) -> None:
    desk.mail.faults.add(Rule("*@blocked.example.org", reply=POLICY))
    notes = desk.send(*(f"u{n}@blocked.example.org" for n in range(12)))
    assert {(note.status, note.reason) for note in notes} == {("retrying", "sender_refused")}
    assert desk.opened() == []
    assert {note.status for note in desk.send(*PEOPLE)} == {"sent"}
    # They were accepted, so it is the destination.
    desk.go_on(*(note.id for note in notes))
    assert {desk.note(note.id).reason for note in notes} == {"destination_refused"}


def test_a_message_to_another_domain_probes_for_a_sender_that_some_refuse(desk: Desk) -> None:
    desk.mail.faults.add(Rule("*@*.example.org", reply=POLICY))
    desk.send(*(f"bob@d{n}.example.org" for n in range(3)), sender="news")
    assert desk.opened() == [("relay", "news")]
    desk.end_pauses()
    [again, victim] = [desk.accept("ann@d0.example.org", sender="news"), desk.accept(PEOPLE[0], sender="news")]
    desk.deliver([again])
    assert desk.calls(again) == 0
    desk.go_on(again, victim)
    assert (desk.calls(again), desk.note(victim).status) == (0, "sent")
    assert desk.opened() == []


def test_a_known_answer_makes_nobody_wait_longer(desk: Desk) -> None:
    desk.mail.faults.add(Rule("news@*", reply="553 5.7.1 not owned by user", stage="mail"))
    ids = [note.id for note in desk.send(*PEOPLE[:3], sender="news")]
    for _ in range(2):
        desk.end_pauses(100)
        desk.go_on(*ids)
    assert desk.calls(*ids) == 5
    [state] = [state for state in desk.circuits.states() if state.key.sender == "news"]
    assert state.openings == 1
    assert state.open_for_seconds == pytest.approx(30, abs=5)
    # A fresh one need not wait for more than the pause.
    desk.mail.faults.clear()
    desk.end_pauses()
    assert desk.send(PEOPLE[3], sender="news", lane=Lane.URGENT)[0].status == "sent"


@pytest.mark.parametrize(
    ("answer", "stage"),
    [
        (
            "554 5.7.1 id=12345-01, from MTA(smtp:[127.0.0.1]:10025): 554 5.7.1 <bob@example.org>: Relay access "
            "denied",
            "body",
        ),
        ("535 5.7.8 no", "body"),
        ("550 5.7.13 recipient bob@example.org account disabled", "body"),
        ("421 4.2.1 mailbox busy, closing", "rcpt"),
    ],
)
def test_an_answer_after_mail_was_taken_opens_no_circuit(desk: Desk, answer: str, stage: Any) -> None:
    desk.mail.faults.add(Rule("bob@*", reply=answer, stage=stage))
    notes = desk.send(*(f"bob@d{n}.example.org" for n in range(12)))
    assert {note.status for note in notes} == {"retrying"}
    assert desk.opened() == []
    assert {note.status for note in desk.send(*PEOPLE)} == {"sent"}


def test_a_sender_that_one_provider_refuses_goes_out_by_the_next(two_relays: Desk) -> None:
    two_relays.mail.faults.add(Rule("news@*", reply="553 5.7.1 not owned by user", stage="mail"))
    notes = two_relays.send(*PEOPLE[:3], sender="news") + two_relays.send(*PEOPLE[3:], sender="news")
    assert {note.status for note in notes} == {"sent"}
    # The last two went there at once.
    assert [two_relays.calls(note.id) for note in notes] == [2, 2, 2, 1, 1]


def test_what_one_provider_does_not_serve_goes_out_by_the_next(two_relays: Desk) -> None:
    said = "550 5.1.1 host mx.example.org said: 554 5.7.1 Relay access denied (in reply to RCPT TO command)"
    two_relays.mail.faults.add(Rule("bob@example.org", reply=said))
    [note] = two_relays.send("bob@example.org")
    assert (note.status, note.provider) == ("sent", "other")


def test_a_destination_waits_for_a_provider_that_may_serve_it_later(two_relays: Desk) -> None:
    said = "550 5.1.1 host mx.example.org said: 554 5.7.1 Relay access denied (in reply to RCPT TO command)"
    two_relays.mail.faults.add(Rule("bob@example.org", reply=said))
    two_relays.open_circuit("other")
    [note] = two_relays.send("bob@example.org")
    assert (note.status, note.reason) == ("retrying", "destination_refused")
    assert two_relays.audit.story(note.id).attempts[0].outcome == "rejected"
    assert two_relays.other is not None
    two_relays.other.faults.add(Rule("bob@example.org", reply=said))
    two_relays.end_pauses()

    def has_failed() -> bool:
        two_relays.go_on(note.id)
        return two_relays.note(note.id).status == "failed"

    wait_until(has_failed)


@pytest.mark.parametrize(
    ("answer", "stage", "reason", "subject"),
    [
        (
            "550 5.1.1 <bob@example.org>: Recipient address rejected: undeliverable address: host "
            "mx.example.org[192.0.2.5] said: 554 5.7.1 <bob@example.org>: Relay access denied (in reply to RCPT "
            "TO command)",
            "rcpt",
            "destination_refused",
            "destination",
        ),
        (
            "554 Message rejected: Email address is not verified. The following identities failed the check in "
            "region EU-WEST-1: bob@example.org",
            "body",
            "provider_rejected",
            "recipient",
        ),
    ],
)
def test_an_answer_about_one_recipient_fails_that_mail_alone(
    desk: Desk, answer: str, stage: Any, reason: str, subject: str
) -> None:
    desk.mail.faults.add(Rule("bob@*", reply=answer, stage=stage))
    [bob, *others] = desk.send("bob@example.org", *PEOPLE)
    assert (bob.status, bob.reason) == ("failed", reason)
    assert desk.audit.story(bob.id).attempts[0].subject == subject
    assert {note.status for note in others} == {"sent"}
    assert desk.opened() == []
    with transaction(desk.engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM suppressions")).scalar_one() == 0


def test_a_relay_that_denies_one_domain_fails_its_mail_once_others_are_accepted(desk: Desk) -> None:
    desk.mail.faults.add(Rule("*@example.org", reply="554 5.7.1 Relay access denied"))
    [bob] = desk.send("bob@example.org")
    # It may be us.
    assert (bob.status, bob.reason) == ("retrying", "provider_account")
    assert desk.opened() == []
    desk.go_on(bob.id)
    assert desk.note(bob.id).status == "retrying"
    assert {note.status for note in desk.send(*PEOPLE)} == {"sent"}
    desk.go_on(bob.id)
    note = desk.note(bob.id)
    assert (note.status, note.reason) == ("failed", "destination_refused")
    assert note.detail is not None
    assert note.detail.startswith("domain example.org: ")


def test_a_relay_that_denies_everybody_fails_nobody(desk: Desk) -> None:
    desk.mail.faults.add(Rule("*", reply="554 5.7.1 Relay access denied"))
    ids = [note.id for note in desk.send(*PEOPLE)]
    for _ in range(3):
        desk.go_on(*ids)
    assert {(desk.note(id_).status, desk.note(id_).reason) for id_ in ids} == {("retrying", "provider_account")}
    desk.mail.faults.clear()
    desk.go_on(*ids)
    assert {desk.note(id_).status for id_ in ids} == {"sent"}


def test_a_sender_refused_in_the_answer_to_rcpt_suppresses_nobody(desk: Desk) -> None:
    desk.mail.faults.add(Rule("*", reply="550 <news@example.net>: No Such User Here"))
    notes = desk.send(*PEOPLE[:2], sender="news")
    assert {(note.status, note.reason) for note in notes} == {("retrying", "sender_refused")}
    with transaction(desk.engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM suppressions")).scalar_one() == 0


def test_a_probe_that_gets_a_recipients_answer_closes_the_circuit(desk: Desk) -> None:
    desk.open_circuit("relay", 30)
    desk.end_pauses()
    desk.mail.faults.add(Rule("gone@*", reply="550 5.1.1 no such user"))
    [gone] = desk.send("gone@example.org")
    assert (gone.status, gone.reason) == ("failed", "invalid_recipient")
    assert desk.opened() == []


def test_the_message_whose_answer_opened_a_circuit_does_not_probe_it(desk: Desk) -> None:
    desk.twilio.faults.add(TwilioRule("+15550100100", status=401, code=20003, message="no"))
    [first] = desk.send("+15550100100")
    assert desk.opened() == [("text", "")]
    desk.end_pauses()
    desk.go_on(first.id)
    assert desk.calls(first.id) == 1
    # Another one finds out that the account works.
    [second] = desk.send("+15550100101")
    assert second.status == "sent"
    assert desk.opened() == []


def test_an_urgent_message_behind_a_long_pause_gets_its_try(desk: Desk) -> None:
    desk.open_circuit("text", 663)
    [note] = desk.send("+15550100100", lane=Lane.URGENT)
    assert (note.status, desk.calls(note.id)) == ("retrying", 0)
    with transaction(desk.engine) as connection:
        due = connection.execute(text("SELECT extract(epoch FROM due_at - now()) FROM notifications")).scalar_one()
    # It comes back long before it would be given up.
    assert due < 600
    desk.age(590)
    desk.go_on(note.id)
    assert desk.note(note.id).status == "sent"
    assert desk.opened() == []


def test_what_was_never_called_is_not_given_up_however_old_it_is(desk: Desk) -> None:
    desk.open_circuit("text", 663)
    desk.twilio.faults.add(TwilioRule("*", status=401, code=20003, message="no"))
    [note] = desk.send("+15550100100", lane=Lane.URGENT)
    desk.age(700)
    desk.go_on(note.id)
    # Called once, and only then given up; the pause is no longer for it.
    assert desk.calls(note.id) == 1
    found = desk.note(note.id)
    assert (found.status, found.reason) == ("failed", "provider_account")
    [circuit] = desk.steering.open_circuits()
    assert circuit.until is not None


def test_a_message_that_expires_behind_an_open_circuit_gets_its_try(desk: Desk) -> None:
    desk.open_circuit("text", 663)
    desk.mail.faults.clear()
    soon = datetime.now(UTC) + timedelta(seconds=12)
    [note] = desk.send("+15550100100", lane=Lane.URGENT, expires_at=soon)
    assert note.status == "sent"
