"""What is personal on a real Postgres: sealed, opened with the key, found by hash, wiped once it was sent."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from notifier.bootstrap import Services
from notifier.cli.actions import operator
from notifier.cli.checks import check_encryption
from notifier.config.settings import Settings
from notifier.domain.errors import Unavailable, WrongSelection
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane, OnUnknown, Status, SuppressionReason
from notifier.domain.validation import check
from notifier.feedback.suppressions import Suppressions, address_of
from notifier.operations import Operations, Selection
from notifier.operations.rejected import Replays
from notifier.security.body_hash import body_hash
from notifier.security.encryption import Sealer, new_key, read_keys
from notifier.security.recipient_hash import HashKey
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.operator_actions import OperatorActions
from notifier.store.operator_log import OperatorLog, RecordFilter
from notifier.store.personal_data import PersonalData
from notifier.store.re_encryption import Resealing, unknown_keys
from notifier.store.records import DeliveryResult, NewNotification, NewRejection, NewSuppression
from notifier.store.rejected import Rejections
from notifier.store.rejected_selection import RejectedSelection
from notifier.store.search import Audit, Filter
from notifier.store.stuck import Lateness
from tests.integration.test_deliverer import Scripted, World
from tests.support.templates import write_templates
from tests.unit.cli.commandline import CommandLine

ANN = "Ann Lee <Ann@Example.com>"
CODE = "847-canary-15"
HASH_KEY = HashKey("a key of sixteen or more")
ONE = read_keys(new_key("one"))
TWO = read_keys(new_key("two"))


def vault(**keys: bytes) -> PersonalData:
    return PersonalData(HASH_KEY, Sealer(keys))


def test_the_hash_of_a_content_is_nothing_that_can_be_tried_out_without_the_hash_key() -> None:
    message = Message(producer="shop", idempotency_key="k", to=ANN, template="code", context={"code": CODE})
    plain = body_hash(message)
    for keys in ({}, ONE):
        kept = PersonalData(HASH_KEY, Sealer(keys))
        assert kept.body_hash(message, message.content()) != plain
        # What was recorded without the key is known, too.
        assert kept.is_same_body(message, kept.body_hash(message, message.content()))
        assert kept.is_same_body(message, plain)
    assert PersonalData().body_hash(message, message.content()) == plain


class Private(World):
    """The world with keys, and messages with a secret."""

    def use(self, vault: PersonalData) -> None:
        self.ledger, self.audit = Ledger(self.engine, vault), Audit(self.engine, vault)

    def accept_secret(self, key: str = "k", **more: Any) -> UUID:
        fields = {"producer": "shop", "to": ANN, "template": "hello", "context": {"name": CODE, "order": "A-1001"}}
        message = check(Message(idempotency_key=key, **(fields | more)), Channel.EMAIL, Lane.NORMAL)
        names = tuple(name for name in ("name",) if name in message.context)
        new = NewNotification(message, Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.HOLD, 0, secret_names=names)
        [answer] = self.ledger.accept([new])
        assert answer.fault is None
        return answer.id

    def columns(self, id_: UUID) -> Any:
        query = text("SELECT * FROM notifications WHERE id = :id")
        with transaction(self.engine) as connection:
            return connection.execute(query, {"id": id_}).one()

    def dump(self) -> str:
        """Every table but the keys', as text; bytes as the characters that they are."""
        tables = (
            "notifications",
            "attempts",
            "events",
            "idempotency_keys",
            "rejected_messages",
            "operator_records",
        )
        with transaction(self.engine) as connection:
            rows = [row for table in tables for row in connection.execute(text(f"SELECT * FROM {table}"))]
        return "\n".join(
            value.decode("latin-1") if isinstance(value, bytes) else str(value) for row in rows for value in row
        )

    def execute(self, statement: str, **values: Any) -> None:
        with transaction(self.engine) as connection:
            connection.execute(text(statement), values)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[Private]:
    engine, loop = make_engine(database_url), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield Private(Ledger(engine), Audit(engine), engine, write_templates(tmp_path / "templates"), loop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    engine.dispose()


@pytest.fixture(params=["sealed", "plain"])
def kept(request: pytest.FixtureRequest, world: Private) -> Private:
    world.use(vault(**ONE) if request.param == "sealed" else vault())
    return world


def test_a_message_is_sealed_from_its_acceptance_to_its_sending(world: Private) -> None:
    world.use(vault(**ONE))
    id_ = world.accept_secret()
    row, dump = world.columns(id_), world.dump()
    assert (row.recipient, row.address, row.context) == (None, None, None)
    assert row.secret_names == ["name"]
    assert not [word for word in ("Ann", "example.com", CODE, "A-1001") if word in dump]
    provider = Scripted()
    assert world.deliver([id_], provider).sent == 1
    [outgoing] = provider.taken
    assert (outgoing.to, outgoing.subject) == (ANN, f"Hello {CODE}")
    assert world.story(id_).notification.recipient == ANN


def test_secrets_are_wiped_with_the_result_and_the_rest_stays(kept: Private) -> None:
    id_ = kept.accept_secret()
    kept.deliver([id_], Scripted())
    row = kept.columns(id_)
    assert (row.status, row.secrets, row.secret_names) == ("sent", None, [])
    assert CODE not in kept.dump()
    vault = PersonalData(HASH_KEY, Sealer(ONE))
    assert vault.open(row).context == {"order": "A-1001"}
    assert vault.open(row).recipient == ANN


def test_a_secret_that_was_never_sent_can_be_sent_by_an_operator_and_a_wiped_one_not(kept: Private) -> None:
    operations = Operations(OperatorActions(kept.engine, HASH_KEY), Lateness(kept.engine))
    failed, undelivered = kept.accept_secret("failed"), kept.accept_secret("undelivered")
    [claim, other] = kept.ledger.claim([failed, undelivered], lease_seconds=60)
    kept.ledger.finish([DeliveryResult(claim.id, claim.claim, Status.FAILED)])
    kept.ledger.finish([DeliveryResult(other.id, other.claim, Status.SENT, number=None)])
    kept.execute("UPDATE states SET status = 'undelivered' WHERE id = :id", id=undelivered)
    both = Selection((failed, undelivered))
    for dry_run in (True, False):
        done = operations.retry(both, operator="ops", dry_run=dry_run)
        assert (done.matched, done.changed) == (2, 1)
        [skipped] = done.skipped
        assert skipped.id == str(undelivered)
        assert "its producer has to send a new one" in skipped.why
    by_status = Selection(filter=Filter(status="undelivered"))
    assert operations.retry(by_status, operator="ops", dry_run=True).changed == 0
    kept.pass_time()
    provider = Scripted()
    assert kept.deliver([failed], provider).sent == 1
    assert provider.taken[0].subject == f"Hello {CODE}"


def test_what_is_cancelled_or_resolved_as_sent_loses_its_secrets(kept: Private) -> None:
    operations = Operations(OperatorActions(kept.engine), Lateness(kept.engine))
    id_ = kept.accept_secret()
    operations.cancel(Selection((id_,)), operator="ops")
    assert kept.columns(id_).secret_names == []
    assert CODE not in kept.dump()


def test_a_search_by_recipient_finds_sealed_plain_and_redacted_ones(world: Private) -> None:
    world.use(vault())
    plain = world.accept_secret("plain")
    world.use(vault(**ONE))
    sealed, redacted = world.accept_secret("sealed"), world.accept_secret("redacted")
    world.accept_secret("other", to="ben@example.com")
    world.execute("UPDATE messages SET sealed = NULL WHERE id = :id", id=redacted)
    for wanted in (Filter(recipient="ann@example.com"), Filter(recipient=ANN, channel="email")):
        found = {view.id: view.recipient for view in world.audit.search(wanted)}
        assert found == {
            plain: ANN,
            sealed: ANN,
            redacted: None,
        }
    assert world.audit.search(Filter(recipient="ann@example.com", channel="sms")) == []
    assert world.audit.search(Filter(recipient="+15550100123")) == []


def test_a_missing_key_lets_its_messages_wait_and_the_others_go(world: Private) -> None:
    world.use(vault(**ONE))
    locked = world.accept_secret("locked")
    world.use(vault(**TWO))
    free = world.accept_secret("free")
    provider = Scripted()
    assert world.deliver([locked, free], provider).sent == 1
    story = world.story(locked)
    note = story.notification
    assert (note.status, note.reason, note.attempt_count) == ("retrying", "not_configured", 0)
    assert note.detail == "sealed under the key one, which is missing: add it to NOTIFIER_ENCRYPTION_KEYS"
    assert note.recipient == f"({note.detail})"
    with pytest.raises(WrongSelection, match="suppress them by their address"):
        address_of(note.recipient)
    # A name in brackets is a name.
    assert address_of("(Ann) <ann@example.com>") == "(Ann) <ann@example.com>"
    assert unknown_keys(world.engine, Sealer(TWO)) == ["one"]
    world.use(vault(**TWO, **ONE))
    world.pass_time()
    assert world.deliver([locked], provider).sent == 1
    assert world.columns(locked).crash_count == 0


def test_an_unknown_outcome_of_a_locked_message_waits_for_the_key(world: Private) -> None:
    world.use(vault(**ONE))
    id_ = world.accept_secret()
    [claim] = world.ledger.claim([id_], lease_seconds=60)
    world.execute("UPDATE states SET status = 'unknown' WHERE id = :id", id=id_)
    world.execute(
        "INSERT INTO attempts (notification_id, number, provider, outcome) VALUES (:id, 1, 'first', 'unknown')",
        id=claim.id,
    )
    world.use(vault())
    assert world.reconcile([id_], Scripted()) == 0
    assert world.story(id_).notification.status == "unknown"


def test_a_repetition_is_known_whether_its_first_was_sealed_or_not(world: Private) -> None:
    world.use(vault())
    plain = world.accept_secret("plain")
    world.use(vault(**ONE))
    assert world.accept_secret("plain") == plain
    sealed = world.accept_secret("sealed")
    world.use(vault())
    assert world.accept_secret("sealed") == sealed
    [again] = world.ledger.accept(
        [
            NewNotification(
                Message(producer="shop", idempotency_key="sealed", to="ben@example.com", template="hello"),
                Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.HOLD, 0,
            )
        ]
    )  # fmt: skip
    assert again.fault is not None
    assert again.fault.code == "idempotency_conflict"


def test_what_was_rejected_is_sealed_and_replayed_byte_for_byte(world: Private) -> None:
    world.use(vault(**ONE))
    body, headers = b'{"to": "ann@example.com", "\xff": 1}', {"trace": f"for-{CODE}"}
    world.ledger.accept([], [NewRejection("notify.email.normal", body, (), headers)])
    assert not [word for word in ("ann@example.com", CODE) if word in world.dump()]
    [view] = world.audit.rejected()
    assert (view.body, view.headers) == (body, headers)
    published: list[Any] = []
    operator_actions = OperatorActions(world.engine)
    replays = Replays(operator_actions, Rejections(world.engine, vault(**ONE)))
    selection = RejectedSelection((view.id,))
    assert replays.replay_rejected(selection, published.append, operator="ops").changed == 1
    assert (published[0].body, published[0].headers) == (body, headers)
    locked = Replays(operator_actions, Rejections(world.engine, vault()))
    [skipped] = locked.replay_rejected(selection, published.append, operator="ops", again=True).skipped
    assert "add it to NOTIFIER_ENCRYPTION_KEYS" in skipped.why
    world.use(vault())
    assert b"which is missing" in world.audit.rejected()[0].body


def test_resealing_brings_every_row_under_the_first_key(world: Private) -> None:
    world.use(vault())
    old = world.accept_secret("old")
    world.ledger.accept([], [NewRejection("notify.email.normal", b"{", (), {"a": "b"})])
    world.use(vault(**ONE))
    sealed = world.accept_secret("sealed")
    world.execute("UPDATE states SET status = 'retrying'")
    # As a row from before there were hashes.
    world.execute("UPDATE messages SET address_hash = NULL WHERE id = :id", id=old)
    seen: list[int] = []
    done = Resealing(world.engine, vault(**TWO, **ONE)).run(progress=lambda far: seen.append(far.changed))
    assert (done.seen, done.changed, done.busy, done.locked) == (3, 3, 0, 0)
    assert seen[-1] == 3
    assert not [word for word in ("Ann", "example.com", CODE) if word in world.dump()]
    world.use(vault(**TWO))
    assert world.audit.rejected()[0].body == b"{"
    assert {view.id for view in world.audit.search(Filter(recipient=ANN))} == {old, sealed}
    world.pass_time()
    provider = Scripted()
    assert world.deliver([old, sealed], provider).sent == 2
    assert {outgoing.subject for outgoing in provider.taken} == {f"Hello {CODE}"}
    assert Resealing(world.engine, vault(**TWO)).run().changed == 0


def test_resealing_without_its_keys_says_which_are_missing(world: Private) -> None:
    world.use(vault(**ONE))
    world.accept_secret()
    done = Resealing(world.engine, vault(**TWO)).run()
    assert (done.changed, done.locked, done.missing_keys) == (0, 1, ("one",))


def test_another_hash_key_is_taken_over_by_rehashing(world: Private) -> None:
    world.use(vault(**ONE))
    id_ = world.accept_secret()
    world.execute("UPDATE states SET status = 'failed'")
    other = PersonalData(HashKey("another key of sixteen"), Sealer(ONE))
    world.use(other)
    assert world.audit.search(Filter(recipient=ANN)) == []
    assert Resealing(world.engine, other).run().changed == 0
    assert Resealing(world.engine, other).run(rehash=True).changed == 1
    assert [view.id for view in world.audit.search(Filter(recipient=ANN))] == [id_]


def test_suppressions_follow_their_recipients_to_another_hash_key(world: Private) -> None:
    world.use(vault(**ONE))
    id_ = world.accept_secret()
    between, key = HashKey("a key between the two"), HashKey("another key of sixteen")
    world.use(PersonalData(between, Sealer(ONE)))
    world.accept_secret("k2")
    world.execute("UPDATE states SET status = 'failed'")
    before, today = Suppressions(world.engine, HASH_KEY), Suppressions(world.engine, key)
    soon, late = (world.ledger.now() + timedelta(days=days) for days in (1, 2))
    ann: dict[str, Any] = {"channel": Channel.EMAIL, "address": ANN, "source": "bounce"}
    bounced = ann | {"reason": SuppressionReason.HARD_BOUNCE}
    before.add(**ann, reason=SuppressionReason.OPTED_OUT, notification_id=id_)
    before.add(**bounced, expires_at=late)
    today.add(**bounced, expires_at=soon)
    before.add(**bounced, scope="sender:shop", expires_at=soon)
    today.add(**bounced, scope="sender:shop", expires_at=late)
    before.add(**ann | {"address": "eve@example.com"}, reason=SuppressionReason.MANUAL)
    # As complaints made them before the key of their hash was told apart; one of the two can move.
    complaint = SuppressionReason.COMPLAINT
    for hash_ in (one.recipient(Channel.EMAIL, ANN) for one in (HASH_KEY, between)):
        today.keep(NewSuppression(hash_, key.fingerprint, Channel.EMAIL, "global", complaint, "bounce"))
    begun = {one.reason: one.created_at for one in before.find(Channel.EMAIL, ANN)}
    resealing = Resealing(world.engine, PersonalData(key, Sealer(ONE)))
    assert resealing.run(rehash=True).suppressions == 4
    found = [one for one in today.find(Channel.EMAIL, ANN) if one.state == "active"]
    assert {(one.reason, one.scope, one.expires_at) for one in found} == {
        ("opted_out", "global", None),
        ("hard_bounce", "global", late),
        ("hard_bounce", "sender:shop", late),
        ("complaint", "global", None),
    }
    assert {one.hash_key for one in found} == {key.fingerprint}
    [opted_out] = [one for one in found if one.reason == "opted_out"]
    assert (opted_out.created_at, opted_out.notification_id) == (begun["opted_out"], id_)
    # Of the two complaints the one that cannot move keeps its hash: which one that is, their random ids decide.
    left = [one for one in before.find(Channel.EMAIL, ANN) if one.hash_key != key.fingerprint]
    assert {(one.state, one.lifted_by) for one in left} == {("lifted", "replaced")}
    assert today.has_other_key(), "nothing was sent to Eve, so nobody knows her address"
    assert today.lift_other_keys(source="operator:ann") == 1
    assert resealing.run(rehash=True).suppressions == 0


def test_keys_are_rotated_while_everything_is_delivered(world: Private) -> None:
    """Every message goes out once, with its secret; in the end all is under the new key, and no secret is left."""
    world.use(vault(**ONE))
    ids = [world.accept_secret(f"k{n}", context={"name": f"{CODE}-{n}"}) for n in range(60)]
    stop, resealing = threading.Event(), Resealing(world.engine, vault(**TWO, **ONE))

    def rotate() -> None:
        while not stop.is_set():
            resealing.run()

    thread = threading.Thread(target=rotate)
    thread.start()
    world.use(vault(**TWO, **ONE))
    provider, flaky = Scripted(), Scripted("second", error=Unavailable("away"))
    try:
        for start in range(0, 60, 20):
            world.deliver(ids[start : start + 20], flaky if start == 20 else provider)
        world.pass_time()
        world.deliver(ids[20:40], provider)
    finally:
        stop.set()
        thread.join()
    assert sorted(outgoing.subject for outgoing in provider.taken) == sorted(
        f"Hello {CODE}-{n}" for n in range(60)
    )
    done = resealing.run()
    assert (done.busy, done.locked) == (0, 0)
    assert CODE not in world.dump()
    assert resealing.run().changed == 0
    rows = [world.columns(id_) for id_ in ids]
    assert {(row.status, row.secrets) for row in rows} == {("sent", None)}
    assert {bytes(row.sealed[:5]) for row in rows} == {b"\x01\x03two"}


def test_an_operators_record_holds_no_recipient(world: Private) -> None:
    world.use(vault(**ONE))
    operator_actions = OperatorActions(world.engine, HASH_KEY)
    id_ = world.accept_secret()
    world.execute("UPDATE states SET status = 'failed', reason = 'provider_rejected'")
    selection = Selection(filter=Filter(recipient="ann@example.com", status="failed"))
    done = Operations(operator_actions, Lateness(world.engine)).retry(selection, operator="ops")
    assert done.changed == 1
    assert done.record_id is not None
    recorded = operator_actions.record(done.record_id).selection
    assert recorded["filter"]["address_hash"] == [HASH_KEY.recipient(Channel.EMAIL, "ann@example.com").hex()]
    assert "example.com" not in json.dumps(recorded)
    assert world.story(id_).notification.status == "retrying"


def test_the_command_line_makes_keys_and_reseals(world: Private, database_url: str) -> None:
    settings = {"database_url": database_url, "hash_key": HASH_KEY.secret}
    notifier = CommandLine(settings)
    key = notifier("db", "new-key", "2026-11").out.strip()
    assert read_keys(key).keys() == {"2026-11"}
    assert notifier("db", "new-key", "not an id").code == 2
    world.use(vault())
    id_ = world.accept_secret()
    notifier = CommandLine({**settings, "encryption_keys": key})
    busy = notifier("db", "reseal")
    assert busy.code == 1
    assert "1 are on their way" in busy.err
    world.execute("UPDATE states SET status = 'failed'")
    assert notifier("db", "reseal", "--json").json["changed"] == 1
    again, first = OperatorLog(world.engine).page(RecordFilter(action="reseal"), limit=3)
    assert (first.result["changed"], first.result["skipped"], again.result["changed"]) == (0, 1, 1)
    assert (again.operator, again.selection) == (operator(), {"rehash": False})
    assert "example.com" not in world.dump()
    found = notifier("search", "--recipient", "ann@example.com", "--json").json
    assert [row["recipient"] for row in found] == [ANN]
    assert CODE not in notifier("show", str(id_)).out + notifier("show", str(id_), "--json").out


def test_doctor_says_whether_it_is_on_and_which_key_is_missing(world: Private, database_url: str) -> None:
    world.use(vault(**ONE))
    world.accept_secret()

    def said(**settings: Any) -> list[tuple[bool, str]]:
        services = Services(Settings(database_url=database_url, **settings))
        found = [(check.ok, check.detail) for check in check_encryption(services)]
        services.close()
        return found

    missing = "notifications are sealed under keys that are missing: one; they wait"
    assert said() == [(False, missing), (True, "off: recipients and contexts are stored in plain text")]
    keys = f"{new_key('two')},one:{base64.b64encode(ONE['one']).decode()}"
    older = (True, "older notifications are not sealed under the first key, or not found by their recipients yet")
    assert said(encryption_keys=keys) == [older, (True, "on, under the key two; what is older opens under one")]
