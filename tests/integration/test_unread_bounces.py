"""Mails that came back and that nothing could read, on a real Postgres: kept, sealed, shown, and gone in time."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from notifier.config.limits import Retention
from notifier.domain.message import new_id
from notifier.domain.statuses import Channel, Status
from notifier.feedback.bounces import Taken
from notifier.operations.retention import RetentionJob
from notifier.store.engine import transaction
from notifier.store.personal_data import PersonalData
from notifier.store.re_encryption import Resealing
from notifier.store.retention import RetentionRepository
from notifier.store.unread_bounces import MAX_KEPT
from tests.support import bounce_mails as mails
from tests.support.bounce_corpus import RECIPIENT, RETURN_PATH, SENDER, SHAPES, Shape
from tests.support.bounced import ADDRESS, KEY, Mails
from tests.support.templates import write_templates
from tests.unit.cli.commandline import CommandLine

RIDDLE = "From: Zoe <zoe@example.net>\nTo: {to}\nSubject: Re: Your order\n\nWho are you? Call me.\n"
KEYS = ",".join(f"{name}:{base64.b64encode(bytes([number]) * 32).decode()}" for number, name in enumerate("ab"))


@pytest.fixture
def sent(database_url: str, tmp_path: Path) -> Iterator[Mails]:
    made = Mails(database_url, write_templates(tmp_path / "templates"))
    yield made
    made.services.close()


@pytest.fixture
def notifier(database_url: str, sent: Mails) -> CommandLine:
    return CommandLine({"database_url": database_url, "hash_key": KEY, "bounce_address": ADDRESS})


def test_beyond_the_tenth_one_event_says_that_more_came(sent: Mails) -> None:
    id_ = sent.send()
    taken = [sent.bounce(RIDDLE.replace("Call me", f"Call me {number}"), id_) for number in range(13)]
    assert taken == [Taken.UNREAD] * 11 + [Taken.REPEATED] * 2
    details = [event.detail for event in sent.story(id_).events if event.kind == "came_back_unread"]
    assert len(details) == MAX_KEPT + 1
    assert details[-1] == "more came back than is kept"


def test_it_is_kept_with_its_notification_once(sent: Mails, notifier: CommandLine) -> None:
    id_ = sent.send()
    assert "every returned mail could be read" in notifier("bounces", "unread").err
    assert sent.bounce(RIDDLE, id_) is Taken.UNREAD
    assert sent.bounce(RIDDLE, id_) is Taken.REPEATED
    assert sent.state(id_) == (Status.SENT, None)
    [event] = [event for event in sent.story(id_).events if event.kind == "came_back_unread"]
    [kept] = notifier("bounces", "unread", "--json").json
    assert (kept["notification_id"], kept["attempt"], "content" in kept) == (str(id_), 1, False)
    assert event.detail == f"notifier bounces unread {kept['id']}"
    assert "a returned mail could not be read — notifier bounces unread" in notifier("show", id_).out
    for wanted in (kept["id"], id_):
        shown = notifier("bounces", "unread", wanted)
        assert "Who are you? Call me." in shown.out
        assert f"notifier show {id_}" in " ".join(shown.err.split())
    assert notifier("bounces", "unread", kept["id"], "--raw").out == sent.mail(RIDDLE, id_).decode()
    missing = notifier("bounces", "unread", new_id())
    assert (missing.code, "no mail that came back unread has the id" in missing.err) == (1, True)


def test_only_what_has_a_return_path_of_ours_is_kept(sent: Mails) -> None:
    id_ = sent.send()
    for to in (ADDRESS, "shop@example.com", sent.path(new_id())):
        assert sent.bounce(RIDDLE, id_, to, to=to) is Taken.NO_REPORT
    assert sent.services.unread.page(limit=10) == []


def test_a_program_that_answers_leaves_one_line_and_no_mail(sent: Mails) -> None:
    id_ = sent.send()
    for _ in range(2):
        assert sent.bounce(mails.OUT_OF_OFFICE, id_) is Taken.NO_REPORT
    assert [event.kind for event in sent.story(id_).events].count("auto_reply") == 1
    assert sent.services.unread.page(limit=10) == []


def test_of_a_large_one_the_beginning_is_kept_and_of_many_a_few(sent: Mails) -> None:
    id_ = sent.send()
    assert sent.bounce(RIDDLE + "x" * 100_000, id_) is Taken.UNREAD
    [kept] = sent.services.unread.find(id_)
    assert (len(kept.content), kept.size > 100_000) == (64 * 1024, True)
    for number in range(12):
        sent.bounce(f"{RIDDLE}{number}", id_)
    assert len(sent.services.unread.find(id_)) == 10


def test_it_is_sealed_under_the_newest_key_and_resealed(database_url: str, tmp_path: Path) -> None:
    templates = write_templates(tmp_path / "templates")
    plain = Mails(database_url, templates)
    first = plain.send()
    plain.bounce(RIDDLE, first)
    keyed = Mails(database_url, templates, encryption_keys=KEYS.split(",")[0])
    second = keyed.send(producer="news")
    keyed.bounce(RIDDLE, second)
    assert stored(plain) == [(True, False), (False, True)]
    assert "missing" in plain.services.unread.find(second)[0].fault
    shown = CommandLine({"database_url": database_url, "hash_key": KEY, "bounce_address": ADDRESS})(
        "bounces", "unread", second
    )
    assert (shown.code, shown.out, "missing" in shown.err) == (1, "", True)
    both = Mails(database_url, templates, encryption_keys=",".join(reversed(KEYS.split(","))))
    Resealing(both.services.engine, both.services.personal_data).run()
    assert stored(both) == [(False, True), (False, True)]
    assert Resealing(both.services.engine, both.services.personal_data).run().changed == 0
    for id_ in (first, second):
        assert b"Who are you" in both.services.unread.find(id_)[0].content
    assert PersonalData(sealer=both.services.sealer).sealer.key_ids == ("b", "a")
    for one in (plain, keyed, both):
        one.services.close()


def stored(sent: Mails) -> list[tuple[bool, bool]]:
    """Whether each stands in plain bytes, and whether it is sealed."""
    query = text("SELECT content <> '', sealed IS NOT NULL FROM unread_bounces ORDER BY id")
    with transaction(sent.services.engine) as connection:
        return [(row[0], row[1]) for row in connection.execute(query)]


def test_it_goes_with_the_personal_data_of_its_notification(sent: Mails) -> None:
    old = sent.send(id=new_id_of(days=20))
    new = sent.send()
    for id_ in (old, new):
        assert sent.bounce(RIDDLE, id_) is Taken.UNREAD
        sent.bounce(mails.POSTFIX.replace("zoe@", "other@"), id_)
    keeper = RetentionJob(
        RetentionRepository(sent.services.engine), {Channel.EMAIL: Retention(redact_after_days=10)}
    )
    with transaction(sent.services.engine) as connection:
        connection.execute(text("UPDATE states SET updated_at = now() - interval '2 days'"))
    keeper.run()
    assert [one.notification_id for one in sent.services.unread.page(limit=10)] == [new]
    # What comes back later does not bring its recipient back.
    assert sent.bounce(RIDDLE + "more", old) is Taken.REPEATED
    assert [one.notification_id for one in sent.services.unread.page(limit=10)] == [new]
    RetentionJob(RetentionRepository(sent.services.engine), {Channel.EMAIL: Retention(drop_after_days=10)}).run()
    with transaction(sent.services.engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM unread_bounces")).scalar_one() == 1


def new_id_of(*, days: int) -> str:
    from uuid import UUID

    milliseconds = int((datetime.now(UTC).timestamp() - days * 86_400) * 1000)
    return str(UUID(int=new_id().int & ((1 << 80) - 1) | milliseconds << 80))


WHOLE_WAY = [shape for shape in SHAPES if shape.effect in ("dead", "behind") or "our" in shape.name][::3]


@pytest.mark.parametrize("shape", WHOLE_WAY, ids=lambda shape: shape.name)
def test_what_the_corpus_says_is_what_is_recorded(sent: Mails, shape: Shape) -> None:
    id_ = sent.send(RECIPIENT)
    path = sent.path(id_)
    mail = shape.mail.replace(RETURN_PATH.encode(), path.encode())
    assert SENDER == "shop@example.com"
    assert sent.services.bounces.take(mail, path) is Taken.RECORDED
    assert len(sent.suppressed(RECIPIENT)) == (shape.effect == "dead")
    assert sent.state(id_)[0] == Status.UNDELIVERED


@pytest.mark.parametrize(
    "shape", [shape for shape in SHAPES if shape.kind == "complaint"], ids=lambda shape: shape.name
)
def test_every_form_of_complaint_stops_its_sender_and_moves_nothing(sent: Mails, shape: Shape) -> None:
    id_ = sent.send(RECIPIENT)
    mail = shape.mail.replace(RETURN_PATH.encode(), sent.path(id_).encode())
    assert sent.services.bounces.take(mail, ADDRESS) is Taken.RECORDED
    assert sent.state(id_) == (Status.SENT, None)
    [found] = sent.suppressed(RECIPIENT)
    assert (found.scope, found.reason) == ("sender:default", "complaint")
