"""Who is suppressed gets no call: looked up with the attempts' rows, filled by providers' answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from notifier.config.settings import Settings
from notifier.config.structure import Sender, Structure
from notifier.delivery import DeliverySummary
from notifier.domain.errors import Rejected, Unavailable
from notifier.domain.statuses import Channel, Reason, Status, SuppressionReason
from notifier.feedback.suppression_forecast import SuppressionForecast
from notifier.feedback.suppressions import Suppressions
from notifier.operations import Operations, Selection
from notifier.rendering import Renderer
from notifier.security.recipient_hash import HashKey
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.operator_actions import OperatorActions
from notifier.store.records import DeliveryResult, NewSuppression
from notifier.store.search import Audit
from notifier.store.stuck import Lateness
from notifier.store.suppression_forecast import ForecastRepository
from tests.integration.test_deliverer import Scripted, World
from tests.support.templates import write_template, write_templates
from tests.unit.cli.commandline import CommandLine

ANN: dict[str, Any] = {"channel": Channel.EMAIL, "address": "ann@example.com"}


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    engine, loop = make_engine(database_url), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield World(Ledger(engine), Audit(engine), engine, write_templates(tmp_path / "templates"), loop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    engine.dispose()


@pytest.fixture
def suppressions(world: World) -> Suppressions:
    return Suppressions(world.engine, HashKey())


def suppress(suppressions: Suppressions, **more: Any) -> None:
    given = ANN | {"reason": SuppressionReason.OPTED_OUT, "source": "operator:ops"} | more
    assert suppressions.add(**given)


def forecast(world: World, *ids: UUID) -> int:
    """How many of these would end as suppressed."""
    structure = Structure(senders={"default": Sender(email="Shop <shop@example.com>")})
    repository = ForecastRepository(world.engine, OperatorActions(world.engine))
    settings = Settings().model_copy(update={"structure": structure})
    return SuppressionForecast(repository, Renderer(world.templates), settings).count(
        Selection(ids), (Status.QUEUED,)
    )


def test_a_suppressed_recipient_gets_no_call_and_the_others_do(world: World, suppressions: Suppressions) -> None:
    suppress(suppressions)
    ids = [world.accept(f"k{n}", to=to) for n, to in enumerate(("Ann <Ann@example.com>", "ben@example.com"))]
    provider = Scripted()
    assert world.deliver(ids, provider) == DeliverySummary(claimed=2, sent=1, other=1)
    assert [outgoing.to for outgoing in provider.taken] == ["ben@example.com"]
    story = world.story(ids[0])
    assert (story.notification.status, story.notification.reason) == ("suppressed", "opted_out")
    assert (story.notification.attempt_count, story.attempts, story.notification.due_at) == (0, (), None)
    today = datetime.now(UTC).date()
    assert story.notification.detail == f"global, since {today}, by operator:ops"
    assert [(event.kind, event.status, event.reason) for event in story.events][-1] == (
        "status",
        "suppressed",
        "opted_out",
    )


def test_show_says_in_words_why_nothing_was_sent(
    world: World, suppressions: Suppressions, database_url: str
) -> None:
    suppress(suppressions)
    notification_id = world.accept()
    world.deliver([notification_id], Scripted())
    told = CommandLine({"database_url": database_url})("show", notification_id)
    assert told.out.startswith(f"{notification_id}  suppressed: nothing may be sent to the recipient\n")
    assert "the recipient asked for no more messages (opted_out) — global, since " in told.out
    assert "attempt 1" not in told.out
    assert "notifier suppressions show" in told.err


SCOPES: list[tuple[str, dict[str, Any], bool]] = [
    ("global", {}, False),
    ("sender:default", {}, False),
    ("sender:support", {}, True),
    ("category:digest", {}, True),
    ("category:digest", {"template": "digest"}, False),
    ("category:other", {"template": "digest"}, True),
    ("sender:default", {"template": "legal"}, True),
    ("global", {"template": "legal"}, True),
]


def test_a_scope_stops_what_it_names(world: World, suppressions: Suppressions) -> None:
    write_template(world.templates, "digest", 'category = "digest"')
    write_template(world.templates, "legal", "suppression_exempt = true")
    ids = {}
    for number, (scope, fields, is_sent) in enumerate(SCOPES):
        to = f"ann{number}@example.com"
        suppress(suppressions, address=to, scope=scope)
        ids[world.accept(f"k{number}", to=to, **fields)] = is_sent
    assert forecast(world, *ids) == sum(not is_sent for is_sent in ids.values())
    world.deliver(list(ids), Scripted())
    assert {one: world.story(one).notification.status == "sent" for one in ids} == ids


def test_an_exempt_template_goes_against_wishes_and_nothing_else(world: World, suppressions: Suppressions) -> None:
    write_template(world.templates, "legal", "suppression_exempt = true")
    ids = {}
    for reason in SuppressionReason:
        to = f"{reason}@example.com"
        suppress(suppressions, address=to, reason=reason)
        ids[world.accept(reason, to=to, template="legal")] = None if reason.is_a_wish else reason
    assert forecast(world, *ids) == sum(reason is not None for reason in ids.values())
    world.deliver(list(ids), Scripted())
    told = {one: world.story(one).notification.reason for one in ids}
    assert told == {one: "operator" if reason == "manual" else reason for one, reason in ids.items()}


def test_one_that_expired_or_was_lifted_stops_nothing(world: World, suppressions: Suppressions) -> None:
    suppress(suppressions, expires_at=datetime.now(UTC) + timedelta(days=1))
    with transaction(world.engine) as connection:
        connection.execute(text("UPDATE suppressions SET expires_at = now() - interval '1 second'"))
    suppress(suppressions, reason=SuppressionReason.MANUAL)
    assert suppressions.lift(**ANN, source="operator:ops")
    one = world.accept()
    assert forecast(world, one) == 0
    assert world.deliver([one], Scripted()).sent == 1


@pytest.mark.parametrize(
    ("reason", "found", "scope"),
    [
        (Reason.OPTED_OUT, "opted_out", "sender:default"),
        (Reason.INVALID_RECIPIENT, "invalid_recipient", "global"),
        (Reason.UNREACHABLE_RECIPIENT, "invalid_recipient", "global"),
    ],
)
def test_a_refusal_with_that_advice_suppresses_the_next(
    world: World, suppressions: Suppressions, reason: Reason, found: str, scope: str
) -> None:
    first, second = world.accept("k1"), world.accept("k2")
    provider = Scripted(error=Rejected("no more", reason=reason, code="21610", suppress=True))
    world.deliver([first], provider)
    world.deliver([second], provider)
    assert len(provider.taken) == 1
    assert world.story(first).notification.status == "failed"
    assert world.story(second).notification.status == "suppressed"
    (one,) = suppressions.find(**ANN)
    assert (one.reason, one.scope, one.source, one.notification_id) == (found, scope, "provider:first", first)
    assert one.detail == "21610 no more"


def test_a_refusal_and_its_suppression_are_written_together_or_not_at_all(world: World) -> None:
    notification_id = world.accept()
    [claim] = world.ledger.claim([notification_id], lease_seconds=60)
    # No channel of that name: the database refuses it.
    wrong = NewSuppression(b"hash", "key", "fax", "global", SuppressionReason.OPTED_OUT, "x")  # type: ignore[arg-type]
    result = DeliveryResult(notification_id, claim.claim, Status.FAILED, Reason.OPTED_OUT, suppression=wrong)
    with pytest.raises(IntegrityError):
        world.ledger.finish([result])
    assert world.story(notification_id).notification.status == "sending"


def test_a_refusal_without_that_advice_suppresses_nobody(world: World, suppressions: Suppressions) -> None:
    world.deliver([world.accept()], Scripted(error=Rejected("too large", reason=Reason.CONTENT_REFUSED)))
    assert suppressions.find(**ANN) == []


def test_who_opts_out_while_a_provider_fails_gets_no_call_to_the_next(
    world: World, suppressions: Suppressions
) -> None:
    notification_id = world.accept()
    first = Scripted("first", error=Unavailable("away"), before=lambda _: suppress(suppressions))
    second = Scripted("second")
    world.deliver([notification_id], first, second)
    assert second.taken == []
    story = world.story(notification_id)
    assert (story.notification.status, story.notification.attempt_count) == ("suppressed", 1)


def test_a_retry_looks_again(world: World, suppressions: Suppressions) -> None:
    suppress(suppressions)
    notification_id, provider = world.accept(), Scripted()
    operations = Operations(OperatorActions(world.engine), Lateness(world.engine))
    world.deliver([notification_id], provider)
    for _ in range(2):
        assert operations.retry(Selection((notification_id,)), operator="ops").changed == 1
        world.pass_time()
        world.deliver([notification_id], provider)
        suppressions.lift(**ANN, source="operator:ops")
    assert len(provider.taken) == 1
    assert world.story(notification_id).notification.status == "sent"
