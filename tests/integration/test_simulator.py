"""Test keys: the whole way of a message and no provider; nothing of it shows where live messages are looked at."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from notifier.config.structure import load_structure
from notifier.dev.smtp_server import MailServer, running_mail_server
from notifier.domain.errors import ConfigurationError, WrongSelection
from notifier.domain.statuses import SIMULATOR, Channel, Lane, SuppressionReason
from notifier.operations import Selection
from notifier.operations.api_keys import Grants, Scope
from notifier.providers.simulator import NUMBERS, Simulator
from notifier.store.engine import transaction
from notifier.store.records import NewAttempt
from notifier.store.search import Filter, Story
from notifier.worker.runtime import DeliveryLoop
from tests.support.api import Api, Reply
from tests.support.templates import write_templates
from tests.unit.cli.commandline import CommandLine

STRUCTURE: dict[str, Any] = {
    "senders": {"default": {"email": "shop@example.com", "sms": "+15550100100", "rate_per_second": 1}},
    "sms_prefixes": ["+33"],
    "caps": {"recipient": {"count": 1, "per_seconds": 3600}},
    "quotas": {"shop": {"email": 1, "sms": 1}},
}


REFUSED = "refused@simulator.example"


@dataclass
class Bench:
    """The API, one worker's delivery, and a mail server that should hear of nothing but live messages."""

    api: Api
    delivery: DeliveryLoop
    mail: MailServer
    live: str
    test: str

    def send(self, key: str, to: str = "ann@example.com", idempotency_key: str = "", **fields: Any) -> Reply:
        sms = to.startswith("+")
        body = {
            "idempotency_key": idempotency_key or f"to {to}",
            "channel": "sms" if sms else "email",
            "to": to,
            "template": "code" if sms else "hello",
            "context": {"code": "1"} if sms else {"name": "Ann"},
            **fields,
        }
        return self.api("POST", "/v1/notifications", key=key, json_body=body)

    def deliver(self, *ids: UUID) -> None:
        self.delivery.deliverer.deliver(ids)

    def go_on(self) -> None:
        """As if all that waits had become due, and a sweep came by: retries, unknown outcomes, receipts."""
        with transaction(self.api.services.engine) as connection:
            connection.execute(text("UPDATE states SET due_at = now() WHERE due_at IS NOT NULL"))
        self.api.services.dispatcher(lambda *task: self.deliver(*task[-1]), self.look_up).dispatch_due()

    def look_up(self, channel: Channel, lane: Lane, ids: Sequence[UUID]) -> None:
        """What the worker's task of that name does."""
        self.delivery.reconciler.reconcile(ids)
        self.delivery.poller.ask(ids)

    def story(self, id_: UUID) -> Story:
        return self.api.services.audit.story(id_)

    def count(self, table: str) -> int:
        with transaction(self.api.services.engine) as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


@pytest.fixture
def bench(database_url: str, tmp_path: Path) -> Iterator[Bench]:
    with running_mail_server(MailServer()) as mail:
        url = f"smtp://127.0.0.1:{mail.port}?starttls=never"
        api = Api(database_url, write_templates(tmp_path), structure=STRUCTURE, smtp_url=url)
        delivery = DeliveryLoop(api.services)
        live, test = (api.key(Scope.SEND, Scope.READ, is_test=is_test) for is_test in (False, True))
        yield Bench(api, delivery, mail, live, test)
        delivery.stop()
        api.close()


FATES = [
    ("delivered", ("sent", None), ("delivered", None)),
    ("bounced+7", ("sent", None), ("undelivered", "hard_bounce")),
    ("deferred", ("retrying", "provider_unavailable"), ("sent", None)),
    ("refused", ("failed", "invalid_recipient"), ("failed", "invalid_recipient")),
    ("opted-out", ("failed", "opted_out"), ("failed", "opted_out")),
    ("unknown", ("unknown", "outcome_unknown"), ("unknown", "outcome_unknown")),
    ("anybody-else", ("sent", None), ("delivered", None)),
]


def test_each_recipient_has_its_outcome_and_no_provider_hears_of_it(bench: Bench) -> None:
    # More than the caps, quotas and rates of live messages would let pass.
    people = [f"{name}@simulator.example" for name, *_ in FATES] + list(NUMBERS)
    replies = [bench.send(bench.test, to) for to in people]
    assert {reply.status for reply in replies} == {202}
    ids = [UUID(reply.json["id"]) for reply in replies]
    bench.deliver(*ids)
    for where in (1, 2):
        for row, id_ in zip([*FATES, *FATES[:6]], ids, strict=True):
            note = bench.story(id_).notification
            expected = row[where]
            if note.channel == "sms" and expected[0] == "undelivered":
                expected = ("undelivered", "unreachable_recipient")
            # The template of the mail says `resend`, that of the SMS `hold`.
            if where == 2 and row[0] == "unknown" and note.channel == "email":
                expected = ("retrying", "outcome_unknown")
            assert (note.status, note.reason) == expected, row
            assert note.is_test
        if where == 1:
            bench.go_on()
    bench.go_on()
    bench.go_on()
    ends = {note.recipient: note.status for note in (bench.story(id_).notification for id_ in ids)}
    second_time = [f"{name}@simulator.example" for name in ("deferred", "unknown")]
    assert {ends[to] for to in second_time} == {"delivered"}
    assert {attempt.provider for id_ in ids for attempt in bench.story(id_).attempts} == {SIMULATOR}
    assert bench.mail.received == 0
    for table in (
        "suppressions",
        "provider_outcomes",
        "provider_states",
        "circuits",
        "rate_slots",
        "usage_counts",
    ):
        assert bench.count(table) == 0, table
    assert bench.api.services.audit.count() == []


def test_a_simulated_receipt_is_due_in_a_moment_and_comes_by_the_way_of_real_ones(bench: Bench) -> None:
    id_ = UUID(bench.send(bench.test).json["id"])
    bench.deliver(id_)
    note = bench.story(id_).notification
    assert note.due_at is not None
    assert note.sent_at is not None
    assert (note.due_at - note.sent_at).total_seconds() == Simulator.report_after_seconds
    bench.delivery.poller.ask([id_])
    assert [event.kind for event in bench.story(id_).events] == ["accepted", "status", "status", "provider"]
    assert bench.story(id_).notification.status == "delivered"


def test_the_same_idempotency_key_is_two_notifications_and_only_the_live_one_goes_out(bench: Bench) -> None:
    test, live = (bench.send(key, idempotency_key="order-7") for key in (bench.test, bench.live))
    assert test.json["id"] != live.json["id"]
    again = bench.send(bench.test, idempotency_key="order-7")
    assert (again.json, again.headers["idempotency-replayed"]) == (test.json, "true")
    assert bench.send(bench.test, idempotency_key="order-7", reference="x").status == 409
    bench.deliver(UUID(test.json["id"]), UUID(live.json["id"]))
    assert [bench.story(UUID(reply.json["id"])).attempts[0].provider for reply in (test, live)] == [
        SIMULATOR,
        "smtp",
    ]
    assert bench.mail.received == 1
    clash = bench.send(bench.live, idempotency_key="other", id=test.json["id"])
    assert (clash.status, clash.json["errors"][0]["code"]) == (409, "id_in_use")


def test_an_operators_retry_leaves_a_test_a_test(bench: Bench) -> None:
    id_ = UUID(bench.send(bench.test, REFUSED).json["id"])
    bench.deliver(id_)
    assert bench.api.parts.operations.retry(Selection((id_,)), operator="ann", reason=None).changed == 1
    bench.go_on()
    assert [attempt.provider for attempt in bench.story(id_).attempts] == [SIMULATOR, SIMULATOR]
    assert bench.mail.received == 0


def test_no_attempt_goes_against_the_mark_whoever_asks_for_it(bench: Bench) -> None:
    """Were all of our own code wrong, the database would commit no attempt, and so there would be no call."""
    ids = [UUID(bench.send(key).json["id"]) for key in (bench.test, bench.live)]
    ledger = bench.api.services.ledger
    given: dict[str, Any] = {"token": uuid4(), "lease_seconds": 60, "margin_seconds": 1}
    new = ledger.read_queued(ids).new
    assert len(new) == 2
    wrong = [NewAttempt(one, "smtp" if one.is_test else SIMULATOR) for one in new]
    assert ledger.claim_and_start(wrong, **given) == {}
    claims = ledger.claim(ids, lease_seconds=60)
    wrong = [NewAttempt(claim, "smtp" if claim.is_test else SIMULATOR) for claim in claims]
    assert len(claims) == 2
    assert ledger.start_attempts(wrong, margin_seconds=1) == {}
    right = [NewAttempt(claim, SIMULATOR if claim.is_test else "smtp") for claim in claims]
    assert set(ledger.start_attempts(right, margin_seconds=1)) == set(ids)


def test_keys_see_their_own_kind_and_operators_see_both(bench: Bench) -> None:
    ids = {kind: bench.send(getattr(bench, kind)).json["id"] for kind in ("live", "test")}
    operator = bench.api.key(Scope.OPERATE, producer=None)

    def found(key: str, **query: Any) -> set[str]:
        return {item["id"] for item in bench.api("GET", "/v1/notifications", key=key, **query).json["items"]}

    for kind, other in (("live", "test"), ("test", "live")):
        key = getattr(bench, kind)
        assert found(key) == found(key, is_test=kind == "test") == {ids[kind]}
        assert bench.api("GET", f"/v1/notifications/{ids[kind]}", key=key).status == 200
        assert bench.api("GET", f"/v1/notifications/{ids[other]}", key=key).status == 404
        assert bench.api("POST", f"/v1/notifications/{ids[other]}/cancel", key=key).status == 404
        assert bench.api("GET", "/v1/notifications", key=key, is_test=kind != "test").status == 403
        assert [row["count"] for row in bench.api("GET", "/v1/stats", key=key).json["counts"]] == [1]
    assert found(operator) == set(ids.values())
    assert found(operator, is_test=True) == {ids["test"]}
    assert [row["count"] for row in bench.api("GET", "/v1/stats", key=operator).json["counts"]] == [1]
    lines = bench.api("GET", "/v1/notifications", key=operator, format="csv").body.decode().splitlines()
    assert sorted(row["is_test"] for row in csv.DictReader(lines)) == ["false", "true"]


def test_operators_see_the_mark(bench: Bench, database_url: str) -> None:
    id_ = bench.send(bench.test).json["id"]
    bench.send(bench.live)
    notifier = CommandLine({"database_url": database_url})
    assert "no provider is called" in notifier("show", id_).out
    assert [row["id"] for row in notifier("search", "--test", "--json").json] == [id_]
    assert [row["is_test"] for row in notifier("search", "--live", "--json").json] == [False]
    assert "queued (test)" in notifier("search").out
    made = notifier("keys", "create", "--producer", "shop", "--test")
    assert made.out.startswith("ntf_test_")
    assert "simulator.example" in made.err
    assert "valid, test" in notifier("keys", "list").out


def test_who_is_suppressed_is_so_for_a_test_and_a_test_suppresses_nobody(bench: Bench) -> None:
    suppressions = bench.api.parts.suppressions
    to: dict[str, Any] = {"channel": Channel.EMAIL, "address": "ann@example.com"}
    assert suppressions.add(**to, reason=SuppressionReason.MANUAL, source="operator:ann")
    suppressed, refused = (UUID(bench.send(bench.test, one).json["id"]) for one in ("ann@example.com", REFUSED))
    bench.deliver(suppressed, refused)
    assert bench.story(suppressed).notification.status == "suppressed"
    assert bench.story(refused).notification.reason == "invalid_recipient"
    assert bench.count("suppressions") == 1
    live = UUID(bench.send(bench.live, REFUSED).json["id"])
    bench.deliver(live)
    assert (bench.story(live).notification.status, bench.mail.received) == ("sent", 1)


def test_a_test_key_is_one_for_good(bench: Bench) -> None:
    token = bench.test
    assert bench.api("GET", "/v1/notifications", key=token.replace("ntf_test", "ntf_live")).status == 401
    assert bench.api("GET", "/v1/notifications", key=bench.live.replace("ntf_live", "ntf_test")).status == 401
    rotated = bench.api.parts.keys.rotate(token.split("_")[2], overlap_seconds=60, operator="ann")
    assert rotated.token.startswith("ntf_test_")
    with pytest.raises(WrongSelection):
        bench.api.parts.keys.create(Grants((Scope.OPERATE,), "x", "shop", is_test=True), operator="ann")


def test_no_provider_can_have_the_simulators_name(tmp_path: Path) -> None:
    path = tmp_path / "notifier.toml"
    path.write_text(f'[[providers]]\nname = "{SIMULATOR}"\nkind = "smtp"\nurl = "smtp://127.0.0.1"\n')
    with pytest.raises(ConfigurationError, match="test keys"):
        load_structure(path)


def test_a_test_message_that_is_held_does_not_make_operators_look(bench: Bench) -> None:
    id_ = UUID(bench.send(bench.test, "+15550100205").json["id"])
    bench.deliver(id_)
    bench.go_on()
    assert bench.story(id_).notification.status == "unknown"
    assert bench.story(id_).notification.due_at is None
    assert bench.api.parts.operations.stuck() == []
    assert len(bench.api.services.audit.search(Filter(is_test=True))) == 1
