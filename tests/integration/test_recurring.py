"""Recurring notifications on a real Postgres: each moment of a plan reaches each recipient once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from notifier.cli.operator_services import OperatorServices
from notifier.config.settings import Settings
from notifier.domain.errors import Fault, InvalidMessage, NotFound, ServiceUnavailable, WrongSelection
from notifier.domain.message import Message
from notifier.domain.producers import Origin
from notifier.domain.recurrence import Recurrence
from notifier.domain.statuses import Channel, Lane, SuppressionReason
from notifier.operations import recurring_runs
from notifier.operations.recurring_runs import RecurringRuns
from notifier.security.encryption import new_key
from notifier.store.engine import transaction
from notifier.store.filters import Filter
from notifier.store.re_encryption import Resealing, unknown_keys
from notifier.store.recurring import ListedRecipient, RecurringPlan, RecurringView
from notifier.store.recurring_runs import RecurringRunRepository
from notifier.store.search import NotificationView
from tests.support.templates import write_templates
from tests.unit.cli.commandline import CommandLine

EVERY_MORNING = Recurrence("30 9 * * *", "Europe/Berlin")
PLAN: dict[str, Any] = {
    "producer": "shop",
    "name": "digest",
    "recurrence": EVERY_MORNING,
    "channel": Channel.EMAIL,
    "lane": Lane.BULK,
    "template": "hello",
    "context": {},
}


class World(OperatorServices):
    """The services, and steps of the clock: what is planned moves, and the database's clock does not."""

    def add(self, count: int = 3, **fields: Any) -> UUID:
        return self.recurring.add(RecurringPlan(**(PLAN | fields)), people(count), operator="ann").id

    def execute(self, statement: str, **values: Any) -> Any:
        with transaction(self.engine) as connection:
            found = connection.execute(text(statement), values)
            return found.all() if found.returns_rows else []

    def make_due(self, id_: UUID, ago: timedelta = timedelta(minutes=1)) -> None:
        """As if its plan had said so: at this minute of every hour, or a test that runs when a minute begins would
        see the next run."""
        self.execute(
            "UPDATE recurring_notifications SET cron = extract(minute FROM now() - :ago) || ' * * * *', "
            "next_at = date_trunc('minute', now()) - :ago, leased_until = NULL WHERE id = :id",
            id=id_,
            ago=ago,
        )

    def end_lease(self) -> None:
        self.execute("UPDATE recurring_notifications SET leased_until = now() WHERE leased_until IS NOT NULL")

    def sent(self) -> list[NotificationView]:
        return self.audit.search(Filter(reference="digest"), limit=1000)

    def view(self, id_: UUID) -> RecurringView:
        return self.recurring.view(id_)


def people(count: int) -> list[ListedRecipient]:
    return [
        ListedRecipient(line, f"Person {line} <person{line}@example.com>", {"name": f"Ann {line}"})
        for line in range(1, count + 1)
    ]


def make_world(database_url: str, templates: Path, **more: Any) -> World:
    broker = SecretStr("redis://127.0.0.1:1/0")
    settings = Settings(database_url=SecretStr(database_url), broker_url=broker, templates=templates, **more)
    return World(settings, pool_size=8)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = make_world(database_url, write_templates(tmp_path / "templates"))
    yield made
    made.close()


def addresses(found: Sequence[NotificationView]) -> list[str]:
    return sorted(str(one.recipient) for one in found)


def test_what_is_due_reaches_everybody_once_though_ticks_run_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurring_runs, "PORTION", 2)
    planned = world.add(5, context={"name": "everybody"}, sender=None)
    assert world.recurring_runs.tick() == {"accepted": 0, "refused": 0}
    assert world.view(planned).next_at is not None
    world.make_due(planned)
    threads = [threading.Thread(target=world.recurring_runs.tick) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert addresses(world.sent()) == addresses(world.sent()[:5])
    assert len(world.sent()) == 5
    assert {(one.lane, one.proof, one.sent_by, one.producer, one.status) for one in world.sent()} == {
        ("bulk", "service", f"recurring:{planned}", "shop", "queued")
    }
    assert all("@" not in str(one.idempotency_key) for one in world.sent())
    [context] = world.execute(
        "SELECT DISTINCT context->>'name' AS name FROM messages WHERE address LIKE 'person1@%'"
    )
    assert context.name == "Ann 1", "its own wins over the shared one"
    view = world.view(planned)
    assert (view.state, view.run_accepted, view.run_refused, view.note) == ("waiting", 5, 0, None)
    assert view.next_at is not None
    assert view.run_at is not None
    assert view.next_at > view.run_at
    assert world.recurring_runs.tick() == {"accepted": 0, "refused": 0}


def test_a_crash_between_portions_loses_nobody_and_doubles_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurring_runs, "PORTION", 2)
    planned = world.add(5)
    world.make_due(planned)
    runs = RecurringRunRepository(world.engine, world.personal_data)
    calls = 0

    def crash(messages: Sequence[Message], origin: Origin) -> list[tuple[Fault, ...]]:
        nonlocal calls
        calls += 1
        if calls == 2:
            # Accepted, and never noted.
            world.accept_own(messages, origin)
            raise ServiceUnavailable("killed here")
        return world.accept_own(messages, origin)

    with pytest.raises(ServiceUnavailable):
        RecurringRuns(runs, crash).tick()
    assert len(world.sent()) == 4
    half = world.view(planned)
    assert (half.state, half.run_accepted) == ("running", 2)
    # Its lease holds: nobody else takes it, until it ends.
    assert world.recurring_runs.tick() == {"accepted": 0, "refused": 0}
    world.end_lease()
    assert world.recurring_runs.tick() == {"accepted": 3, "refused": 0}
    assert len(world.sent()) == len(set(addresses(world.sent()))) == 5
    done = world.view(planned)
    assert (done.run_at, done.run_accepted, done.state) == (half.run_at, 5, "waiting")


def test_a_worker_that_was_too_slow_changes_nothing(world: World) -> None:
    planned = world.add(3)
    world.make_due(planned)
    runs = RecurringRunRepository(world.engine, world.personal_data)

    def stall(messages: Sequence[Message], origin: Origin) -> list[tuple[Fault, ...]]:
        world.end_lease()
        assert world.recurring_runs.tick() == {"accepted": 3, "refused": 0}
        return world.accept_own(messages, origin)

    RecurringRuns(runs, stall).tick()
    view = world.view(planned)
    assert (view.run_accepted, view.run_finished_at is not None, len(world.sent())) == (3, True, 3)


def test_a_long_list_goes_on_with_the_next_tick_and_a_new_list_begins_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurring_runs, "PORTION", 2)
    planned = world.add(5)
    world.make_due(planned)

    # Its time is over when the first portion is.
    times = iter([0.0, 1.0])
    with monkeypatch.context() as patch:
        patch.setattr(recurring_runs, "time", SimpleNamespace(monotonic=lambda: next(times, 99.0)))
        world.recurring_runs.tick()
    assert (world.view(planned).state, len(world.sent())) == ("running", 2)
    others = [ListedRecipient(1, "new@example.com", {"name": "Bo"}), *people(3)[1:]]
    # Person 2 has got it, with other words.
    others[1] = ListedRecipient(2, others[1].to, {"name": "Someone else"})
    world.recurring.replace_list(planned, others, operator="ann")
    assert world.recurring_runs.tick() == {"accepted": 3, "refused": 0}
    expected = ["Person 1 <person1@", "Person 2 <person2@", "Person 3 <person3@", "new@"]
    assert addresses(world.sent()) == [f"{one}example.com{'>' * ('<' in one)}" for one in expected]


def test_a_bad_line_is_told_and_the_others_go(world: World, database_url: str, tmp_path: Path) -> None:
    planned = world.add(3)
    more = [*people(1), ListedRecipient(2, "a b@example.com", {"name": "Bo"})]
    listed = world.recurring.add_to_list(planned, more, operator="ann")
    assert [(one.line, one.faults[0].code) for one in listed.refused] == [(2, "not_an_address")]
    world.make_due(planned)
    assert world.recurring_runs.tick() == {"accepted": 3, "refused": 1}
    [fault] = world.view(planned).run_faults
    assert (fault["line"], fault["field"], fault["code"]) == (5, "to", "not_an_address")
    # A template that is there no more refuses them all.
    other = make_world(database_url, tmp_path / "none")
    other.make_due(planned)
    assert other.recurring_runs.tick() == {"accepted": 0, "refused": 4}
    assert {fault["code"] for fault in world.view(planned).run_faults} == {"unknown_template", "not_an_address"}
    assert "a b" not in str(world.view(planned).run_faults)
    other.close()


def test_only_the_latest_of_what_was_missed_is_made_up_for(world: World) -> None:
    planned = world.add(2)
    world.make_due(planned, timedelta(hours=3))
    world.recurring_runs.tick()
    view = world.view(planned)
    assert view.run_at is not None
    assert datetime.now(UTC) - view.run_at < timedelta(hours=1)
    assert len(world.sent()) == 2
    # What is older than an hour is not, and the plan goes on.
    hour = (datetime.now(UTC) - timedelta(hours=3)).hour
    world.execute(
        "UPDATE recurring_notifications SET cron = :cron, zone = 'UTC', next_at = now() - interval '2 days'",
        cron=f"0 {hour} * * *",
    )
    assert world.recurring_runs.tick() == {"accepted": 0, "refused": 0}
    after = world.view(planned)
    assert "was missed" in (after.note or "")
    assert after.next_at is not None
    assert after.next_at > datetime.now(UTC)
    # Nor does a run go on that stood still for so long.
    world.recurring.run(planned, operator="ann")
    world.execute("UPDATE recurring_notifications SET run_moved_at = now() - interval '61 minutes'")
    assert world.recurring_runs.tick() == {"accepted": 0, "refused": 0}
    assert "stood still" in (world.view(planned).note or "")


def test_pause_resume_run_and_remove(world: World) -> None:
    planned = world.add(2)
    world.make_due(planned)
    world.recurring.pause(planned, operator="ann", reason="holidays")
    assert (world.recurring_runs.tick()["accepted"], world.view(planned).state) == (0, "paused")
    with pytest.raises(WrongSelection, match="it is paused"):
        world.recurring.run(planned, operator="ann")
    world.recurring.resume(planned, operator="ann")
    view = world.view(planned)
    assert view.next_at is not None
    assert view.next_at > datetime.now(UTC), "what was due meanwhile is not sent"
    world.execute("UPDATE recurring_notifications SET cron = '30 9 * * *', next_at = now() + interval '1 hour'")
    record = world.recurring.run(planned, operator="ann", reason="a first look")
    with pytest.raises(WrongSelection, match="under way"):
        world.recurring.run(planned, operator="ann")
    assert world.recurring_runs.tick()["accepted"] == 2
    after = world.view(planned)
    assert after.next_at is not None
    assert after.next_at > datetime.now(UTC) + timedelta(minutes=50), "its plan stays"
    told = world.operator_actions.record(record)
    assert (told.operator, told.action, told.reason) == ("ann", "recurring_run", "a first look")
    assert world.recurring.find("digest").id == planned
    # The same name is free for tests.
    tests = world.add(1, is_test=True)
    world.recurring.run(tests, operator="ann")
    world.recurring_runs.tick()
    assert [one.is_test for one in world.sent()] == [True, False, False]
    with pytest.raises(WrongSelection, match="several"):
        world.recurring.find("digest")
    with pytest.raises(WrongSelection, match="already"):
        world.add(1)
    world.recurring.remove(tests, operator="ann")
    world.recurring.remove(planned, operator="ann")
    with pytest.raises(NotFound):
        world.view(planned)
    assert world.execute("SELECT * FROM recurring_recipients") == []
    assert len(world.sent()) == 3


def test_a_resume_in_the_middle_of_a_run_sends_nothing_that_was_due_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurring_runs, "PORTION", 2)
    planned, runs = world.add(5), RecurringRunRepository(world.engine, world.personal_data)
    [(now,)] = world.execute("SELECT date_trunc('minute', now())")
    run_at, missed = now - timedelta(minutes=10), now - timedelta(minutes=5)
    world.execute(
        "UPDATE recurring_notifications SET cron = :cron, zone = 'UTC', next_at = :run_at",
        cron=f"{run_at.minute},{missed.minute} * * * *",
        run_at=run_at,
    )

    def pause(messages: Sequence[Message], origin: Origin) -> list[tuple[Fault, ...]]:
        world.recurring.pause(planned, operator="ann")
        return world.accept_own(messages, origin)

    # The run of ten minutes ago: what was due five minutes ago came while it was under way.
    taken = runs.take()
    assert taken is not None
    assert runs.begin(taken, run_at)
    world.end_lease()
    RecurringRuns(runs, pause).tick()
    assert (world.view(planned).state, len(world.sent())) == ("paused", 2)
    world.recurring.resume(planned, operator="ann")
    goes_on = world.view(planned).next_at
    world.end_lease()
    assert world.recurring_runs.tick() == {"accepted": 3, "refused": 0}
    assert world.view(planned).next_at == goes_on
    # Nor does a worker begin what it was about to, when somebody paused and resumed.
    world.execute("UPDATE recurring_notifications SET next_at = :missed", missed=missed)
    late = runs.take()
    assert late is not None
    world.recurring.pause(planned, operator="ann")
    world.recurring.resume(planned, operator="ann")
    assert not runs.begin(late, missed)


WRONG: list[tuple[dict[str, Any], list[ListedRecipient], set[str]]] = [
    ({"recurrence": Recurrence("9:30", "Mars")}, people(1), {"bad_cron", "unknown_zone"}),
    ({"name": "a b"}, people(1), {"bad_format"}),
    ({"recurrence": Recurrence("0 9 * * *", "UTC", datetime(2020, 1, 1, tzinfo=UTC))}, people(1), {"never_due"}),
    ({}, [], {"missing"}),
    ({}, [*people(2), ListedRecipient(3, "PERSON1@example.com", {"name": "x"})], {"twice"}),
    ({}, [ListedRecipient(1, "a@example.com", {"name": "\0"})], {"nul_character"}),
    ({"context": {"name": "\0"}}, people(1), {"nul_character"}),
    ({"template": "hullo"}, people(2), {"unknown_template"}),
    (
        {"channel": Channel.SMS, "template": "code"},
        [ListedRecipient(1, "+15550100123", {"code": "1"})],
        {"secret_variable"},
    ),
]


def test_a_plan_that_cannot_work_is_refused_at_once(world: World) -> None:
    for plan, recipients, codes in WRONG:
        made = RecurringPlan(**(PLAN | plan))
        with pytest.raises(InvalidMessage) as refused:
            world.recurring.add(made, recipients, operator="ann")
        assert {fault.code for fault in refused.value.faults} == codes
    assert world.recurring.views() == []


def test_a_list_is_sealed_found_by_hash_and_erased(database_url: str, tmp_path: Path) -> None:
    templates = write_templates(tmp_path / "templates")
    one, two = new_key("one"), new_key("two")
    world = make_world(database_url, templates, encryption_keys=SecretStr(one))
    planned = world.add(3, context={"shop": "canary-17"})
    tables = ("recurring_notifications", "recurring_recipients", "operator_records", "idempotency_keys")

    def dump() -> str:
        rows = [world.execute(f"SELECT to_jsonb(t)::text AS row FROM {table} AS t") for table in tables]
        return str(rows).lower()

    assert not any(word in dump() for word in ("canary", "person1@", "ann 1"))
    other = make_world(
        database_url, templates, encryption_keys=SecretStr(f"{two},{one}"), hash_key=SecretStr("k" * 20)
    )
    done = Resealing(other.engine, other.personal_data).run(rehash=True)
    assert (done.busy, done.locked, done.changed) == (0, 0, 4)
    world.close()
    world = make_world(database_url, templates, encryption_keys=SecretStr(two), hash_key=SecretStr("k" * 20))
    assert unknown_keys(world.engine, other.sealer) == []
    other.close()
    world.make_due(planned)
    assert world.recurring_runs.tick()["accepted"] == 3
    assert not any(word in dump() for word in ("canary", "person1@", "ann 1"))
    assert [view.id for view in world.recurring.lists_of("person1@example.com")] == [planned]
    assert world.recurring.forget("Person1@Example.com", operator="ann", reason="asked") == 1
    assert world.recurring.lists_of("person1@example.com") == []
    assert world.recurring.take_off_list(planned, ["person2@example.com", "x@example.com"], operator="ann") == 1
    assert world.view(planned).recipients == 1
    assert "person" not in dump()
    world.close()


def test_who_is_added_again_under_another_hash_key_gets_it_once(database_url: str, tmp_path: Path) -> None:
    templates = write_templates(tmp_path / "templates")
    world = make_world(database_url, templates)
    planned = world.add(2)
    other = make_world(database_url, templates, hash_key=SecretStr("k" * 20))
    other.recurring.add_to_list(planned, people(3), operator="ann")
    assert other.view(planned).recipients == 5, "they are known by other hashes"
    other.make_due(planned)
    other.recurring_runs.tick()
    assert len(other.sent()) == 3
    # Whichever of the two lines has the old hash.
    world.recurring.add_to_list(planned, people(1), operator="ann")
    world.execute("UPDATE recurring_recipients SET id = gen_random_uuid() WHERE position = 2")
    person: dict[str, Any] = {"channel": Channel.EMAIL, "address": "person2@example.com"}
    world.suppressions.add(**person, reason=SuppressionReason.MANUAL, source="operator:ann")
    Resealing(other.engine, other.personal_data).run(rehash=True)
    assert other.view(planned).recipients == 3
    assert [one.state for one in other.suppressions.find(**person)] == ["active"], "as its line of the list"
    assert other.recurring.forget("person2@example.com", operator="ann") == 1
    for one in (world, other):
        one.close()


def test_a_missing_key_holds_up_its_own_list_only(database_url: str, tmp_path: Path) -> None:
    templates = write_templates(tmp_path / "templates")
    world = make_world(database_url, templates, encryption_keys=SecretStr(new_key("one")))
    locked = world.add(2)
    world.close()
    world = make_world(database_url, templates)
    free = world.add(2, name="other")
    for planned in (locked, free):
        world.make_due(planned)
    assert world.recurring_runs.tick()["accepted"] == 2
    assert "one" in (world.view(locked).note or "")
    assert world.view(free).run_accepted == 2
    world.close()


@pytest.mark.parametrize("was_paused", [False, True])
def test_a_restored_backup_sends_nothing_of_it_again(world: World, was_paused: bool) -> None:
    planned = world.add(2)
    world.recurring.run(planned, operator="ann")
    if was_paused:
        # In the middle of its run, which somebody may have resumed since the backup.
        world.recurring.pause(planned, operator="ann")
    held = world.restored.hold(operator="ann")
    view = world.view(planned)
    assert (held.recurring, view.state, view.run_finished_at is not None) == (1, "paused", True)
    assert "restored" in (view.note or "")
    world.recurring.resume(planned, operator="ann")
    assert world.recurring_runs.tick()["accepted"] == 0


def test_the_command_line_plans_shows_and_ends(
    world: World, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = CommandLine(
        {"database_url": database_url, "broker_url": "redis://127.0.0.1:1/0", "templates": tmp_path / "templates"}
    )
    file = tmp_path / "people.csv"
    file.write_text("to,name\nann@example.com,Ann\nbo@example.com,Bo\nno address,Cy\nbo@example.com,Bo\n")
    add = ("recurring", "add", "digest", "--cron", "30 9 * * 1-5", "--zone", "America/New_York")
    what = ("--channel", "email", "--template", "hello", "--recipients", file, "--producer", "shop")
    twice = notifier(*add, *what)
    assert (twice.code, "line 5, to: is also the recipient of line 3" in twice.err) == (1, True)
    # A list has few fields: `lane` is a variable.
    file.write_text("to,name,lane\nann@example.com,Ann,3\nbo@example.com,Bo,4\nno address,Cy,5\n")
    added = notifier(*add, *what, "--context", "name=you", "--why", "asked for")
    assert (added.code, added.out.splitlines()[0]) == (0, "3 recipients on the list")
    assert "line 4: to: not an e-mail address" in added.err
    assert "1 of them would be refused today" in added.err
    assert added.out.splitlines()[1].endswith(("09:30 EST", "09:30 EDT"))
    assert notifier(*add, *what).code == 1
    [listed] = notifier("recurring", "list", "--json").json
    assert (listed["name"], listed["recipients"], listed["state"]) == ("digest", 3, "waiting")
    assert notifier("recurring", "run", "digest").code == 0
    world.recurring_runs.tick()
    shown = notifier("recurring", "show", "digest").out + notifier("recurring", "show", "digest").err
    assert "2 accepted, 1 refused" in shown
    assert "line 4: to: not an e-mail address" in shown
    assert shown.count("09:30 E") >= 5
    lists = notifier("recurring", "forget", "Ann@example.com", "--dry-run", "--json").json
    assert [one["name"] for one in lists] == ["digest"]
    assert notifier("recurring", "forget", "Ann@example.com").code == 0
    # As from `<(…)`, whose name says nothing of the format.
    file = file.rename(tmp_path / "people")
    again = ("recurring", "recipients", "digest", "--file", file, "--format", "jsonl", "--json")
    file.write_text('{"to": "new@example.com", "name": "Neu"}\n')
    assert "move it into context" in notifier(*again).err
    file.write_text('{"to": "new@example.com", "context": {"name": "Neu"}}\n')
    assert notifier(*again).json["recipients"] == 1
    for act in ("pause", "resume", "remove"):
        assert notifier("recurring", act, "digest").code == 0
    assert notifier("recurring", "show", "digest").code == 1
