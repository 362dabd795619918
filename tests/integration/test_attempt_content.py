"""What exactly was sent, and from where: each attempt keeps it, whatever is edited, sent or retried later."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from notifier.config.structure import Sender, Structure
from notifier.domain.errors import OutcomeUnknown, Unavailable
from notifier.domain.statuses import Channel, OnUnknown
from notifier.operations.timeline import timeline
from notifier.providers.base import Outgoing, Receipt
from notifier.rendering import Renderer
from notifier.security.recipient_hash import HashKey
from notifier.store.engine import transaction
from notifier.store.ledger import Ledger
from notifier.store.search import AttemptView, Audit
from tests.integration.test_deliverer import Scripted, Searchable, World
from tests.support.templates import write_template, write_templates

OLD = Structure(senders={"default": Sender(email="Shop <shop@example.com>")})
NEW = Structure(senders={"default": Sender(email="orders@example.com")})


@pytest.fixture
def world(engine: Engine, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> World:
    return World(Ledger(engine), Audit(engine), engine, write_templates(tmp_path / "templates"), loop)


def edit(world: World) -> tuple[str, str]:
    """The versions of its template before and after an edit."""
    before = Renderer(world.templates).template(Channel.EMAIL, "hello").version
    (world.templates / "email/hello/body.txt").write_text("Dear {{ name }},\nyours, the shop.\n")
    return before, Renderer(world.templates).template(Channel.EMAIL, "hello").version


def sent_from(attempt: AttemptView) -> tuple[str | None, str | None]:
    return attempt.template_version, attempt.sender_address


@pytest.mark.parametrize("error", [None, OutcomeUnknown("lost")], ids=["undelivered", "unknown"])
def test_the_first_text_stays_on_record_when_an_edited_one_is_sent(world: World, error: Exception | None) -> None:
    seen: list[AttemptView] = []

    def look(outgoing: Outgoing) -> None:
        seen.append(world.story(outgoing.notification_id).attempts[-1])

    notification_id = world.accept()
    world.deliver([notification_id], Scripted(error=error, before=look), structure=OLD)
    before, after = edit(world)
    with transaction(world.engine) as connection:
        connection.execute(text("UPDATE states SET status = 'queued', due_at = now()"))
    world.deliver([notification_id], Scripted(before=look), structure=NEW)
    story = world.story(notification_id)
    sent = [sent_from(attempt) for attempt in story.attempts]
    assert sent == [(before, "Shop <shop@example.com>"), (after, "orders@example.com")]
    # It was written with the beginning of the attempt: who dies in the call leaves it behind.
    assert [sent_from(attempt) for attempt in seen] == sent
    assert (story.accepted_version, story.notification.template_version) == ("v1", after)
    calls = [step.text for step in timeline(story) if "calling" in step.text]
    assert calls == [
        f"attempt 1: calling first from Shop <shop@example.com>, with version {before} of the template",
        f"attempt 2: calling first from orders@example.com, with version {after} of the template",
    ]


def test_the_next_provider_gets_the_same_and_its_attempt_says_so(world: World) -> None:
    notification_id = world.accept()
    world.deliver([notification_id], Scripted("a", error=Unavailable("away")), Scripted("b"))
    first, second = map(sent_from, world.story(notification_id).attempts)
    assert first == second
    assert first[1] == "Shop <shop@example.com>"


def test_a_message_found_by_a_look_up_was_sent_with_its_attempts_version(world: World) -> None:
    notification_id = world.accept()
    provider = Searchable(error=OutcomeUnknown("lost"), has=Receipt("SM1", "delivered"))
    world.deliver([notification_id], provider)
    before = Renderer(world.templates).template(Channel.EMAIL, "hello").version
    assert world.reconcile([notification_id], provider) == 1
    assert world.story(notification_id).notification.template_version == before


def test_a_look_up_asks_for_what_was_sent_and_not_for_what_would_be_sent_now(world: World) -> None:
    world.hash_key = HashKey("a key for tests only")
    given: dict[str, Any] = {"public_url": "https://notify.example.com"}
    write_template(world.templates, "digest", 'category = "digest"\ntransactional = false')
    (world.templates / "email/digest/body.txt").write_text("To stop this: {{ unsubscribe_url }}")
    notification_id = world.accept(template="digest", on_unknown=OnUnknown.RESEND)
    provider = Searchable(error=OutcomeUnknown("lost"), has=Receipt("SM1", "delivered"))
    world.deliver([notification_id], provider, structure=OLD, **given)
    assert world.reconcile([notification_id], provider, structure=NEW, **given) == 1
    [sent], [sought] = provider.taken, provider.asked
    assert (sought.text, sought.sender) == (sent.text, sent.sender)
    assert "https://notify.example.com/" in sought.text


def test_a_text_that_cannot_be_looked_for_is_not_called_missing(world: World) -> None:
    notification_id = world.accept(on_unknown=OnUnknown.HOLD)
    provider = Searchable(error=OutcomeUnknown("lost"))
    world.deliver([notification_id], provider)
    edit(world)
    assert world.reconcile([notification_id], provider) == 0
    detail = world.story(notification_id).notification.detail or ""
    assert detail.startswith("its template has changed since, so its text cannot be looked for: held")
