"""The mass alarm on a real Postgres: when it goes off, what it holds, and what operators do about it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from notifier.config.limits import SuppressionTable
from notifier.domain.message import new_id
from notifier.domain.statuses import Channel, Outcome, Reason, Status, SuppressionReason
from notifier.feedback.bounces import Taken
from notifier.providers.base import Report
from notifier.store.records import DeliveryResult, NewSuppression
from notifier.store.suppressions import SuppressionFilter
from tests.support import bounce_mails as mails
from tests.support.bounced import ADDRESS, KEY, Mails
from tests.support.templates import write_template, write_templates
from tests.unit.cli.commandline import CommandLine

RULE = SuppressionTable(max_hard_bounce_share=0.1, min_messages=20)


@pytest.fixture
def sent(database_url: str, tmp_path: Path) -> Iterator[Mails]:
    templates = write_templates(tmp_path / "templates")
    write_template(templates, "news", 'sender = "news"')
    made = Mails(database_url, templates, alarm=RULE)
    yield made
    made.services.close()


@pytest.fixture
def notifier(database_url: str, sent: Mails) -> CommandLine:
    return CommandLine({"database_url": database_url, "hash_key": KEY, "bounce_address": ADDRESS})


def send(sent: Mails, count: int, **fields: Any) -> list[tuple[UUID, str]]:
    """(id, address) of mails that a relay took."""
    addresses = [f"person{new_id().hex}@example.net" for _ in range(count)]
    return [(sent.send(address, **fields), address) for address in addresses]


def bounce(sent: Mails, id_: UUID, address: str) -> Taken:
    return sent.bounce(mails.POSTFIX.replace("zoe@example.net", address), id_)


def held(sent: Mails) -> int:
    found = sent.services.held.holding()
    return found.held if found else 0


def suppressed(sent: Mails) -> int:
    return len(list(sent.services.suppressions.all(SuppressionFilter())))


def test_it_goes_off_above_the_share_and_loses_nothing(sent: Mails, notifier: CommandLine) -> None:
    gone = send(sent, 40)
    for id_, address in gone[:10]:
        assert bounce(sent, id_, address) is Taken.RECORDED
        assert sent.state(id_) == (Status.UNDELIVERED, "invalid_recipient")
    # 10 % of 40 are suppressed, and from the fifth on they wait.
    assert (suppressed(sent), held(sent)) == (4, 6)
    kinds = [event.kind for event in sent.story(gone[9][0]).events]
    assert kinds[-2:] == ["provider", "suppression_held"] or kinds[-2:] == ["suppression_held", "provider"]
    told = notifier("stuck")
    assert (told.code, "too many hard bounces in an hour" in told.out) == (1, True)
    assert "provider:smtp" in told.out
    assert "sender:default" in told.out
    assert notifier("stuck", "--json").json[0]["held"] == 6
    assert "bounces suppress nobody now" in notifier("doctor").out
    # The same bounce again changes nothing.
    assert bounce(sent, *gone[9]) is Taken.REPEATED
    assert held(sent) == 6


def test_few_mails_and_few_bounces_ring_nothing(sent: Mails) -> None:
    for id_, address in send(sent, 19):
        bounce(sent, id_, address)
    assert (suppressed(sent), held(sent)) == (19, 0)


def test_the_alarm_of_one_sender_leaves_another_alone(sent: Mails) -> None:
    other = send(sent, 400)
    news = send(sent, 30, template="news")
    for id_, address in news[:6]:
        bounce(sent, id_, address)
    assert [alarm.scope for alarm in sent.services.alarms.active()] == ["sender:news"]
    assert (suppressed(sent), held(sent)) == (3, 3)
    bounce(sent, *other[0])
    assert suppressed(sent) == 4


def test_wishes_and_complaints_never_wait(sent: Mails) -> None:
    gone = send(sent, 20)
    for id_, address in gone[:5]:
        bounce(sent, id_, address)
    assert held(sent) == 3
    assert sent.bounce(mails.COMPLAINT, gone[9][0], recipient=gone[9][1]) is Taken.RECORDED
    assert any(one.reason == "complaint" for one in sent.suppressed(gone[9][1]))


def test_refusals_during_the_call_count_and_wait_the_same(sent: Mails) -> None:
    send(sent, 10)
    results = []
    for number in range(20):
        claim = sent.start(f"refused{number}@example.net")
        new = NewSuppression(
            sent.services.hash_key.recipient(Channel.EMAIL, claim.address),
            sent.services.hash_key.fingerprint,
            Channel.EMAIL,
            "global",
            SuppressionReason.INVALID_RECIPIENT,
            "provider:smtp",
            notification_id=claim.id,
            provider="smtp",
            sender="default",
            is_refusal=True,
        )
        results.append(
            DeliveryResult(
                claim.id,
                claim.claim,
                Status.FAILED,
                reason=Reason.INVALID_RECIPIENT,
                number=1,
                outcome=Outcome.REJECTED,
                suppression=new,
            )
        )
    for result in results:
        sent.services.ledger.finish([result])
    # 10 were sent and 10 refused before it can be judged: 20.
    assert suppressed(sent) == 9
    assert held(sent) == 11


def test_many_at_once_pass_the_threshold_by_no_more_than_their_number(sent: Mails) -> None:
    gone = send(sent, 60)
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda one: bounce(sent, *one), gone))
    assert taken == [Taken.RECORDED] * 60
    assert suppressed(sent) == 6
    assert held(sent) == 54


def test_a_campaign_of_the_evening_is_judged_by_what_was_sent_in_the_evening(sent: Mails) -> None:
    old = [(UUID(int=new_id().int - (6 * 3_600_000 << 80)), f"old{n}@example.net") for n in range(60)]
    for id_, address in old:
        sent.send(address, id=id_)
    send(sent, 20)
    for id_, address in old[:6]:
        bounce(sent, id_, address)
    assert (suppressed(sent), held(sent)) == (6, 0)


def test_what_was_held_is_applied_or_discarded_with_a_record(sent: Mails, notifier: CommandLine) -> None:
    gone = send(sent, 20)
    for id_, address in gone[:8]:
        bounce(sent, id_, address)
    assert (suppressed(sent), held(sent)) == (2, 6)
    listed = notifier("suppressions", "held", "--json").json
    assert {(one["provider"], one["sender"], one["reason"]) for one in listed} == {
        ("smtp", "default", "hard_bounce")
    }
    assert "person" not in notifier("suppressions", "held").out
    assert notifier("suppressions", "apply-held").code == 2
    tried = notifier("suppressions", "apply-held", "--dry-run")
    assert (tried.code, "6 would be suppressed" in tried.out, held(sent)) == (0, True, 6)
    none = notifier("suppressions", "apply-held", "--provider", "other", "--reason", "they were right")
    assert (none.code, held(sent)) == (1, 6)
    done = notifier("suppressions", "apply-held", "--sender", "default", "--why", "an old list", "--json")
    assert (done.code, done.json["changed"]) == (0, 6)
    assert (suppressed(sent), held(sent)) == (8, 0)
    [found] = sent.suppressed(gone[7][1])
    assert (found.source, found.reason, found.provider, found.sender) == (
        "bounce",
        "hard_bounce",
        "smtp",
        "default",
    )
    for id_, address in gone[8:10]:
        bounce(sent, id_, address)
    gone_again = notifier("suppressions", "held", "--discard", "--why", "our sender was refused")
    assert (gone_again.code, "2 discarded" in gone_again.out) == (0, True)
    assert "operator record" in gone_again.err
    assert (suppressed(sent), held(sent)) == (8, 0)
    assert sent.state(gone[9][0])[0] == Status.UNDELIVERED


def test_the_suppressions_of_one_source_are_lifted_by_condition(sent: Mails, notifier: CommandLine) -> None:
    gone = send(sent, 5)
    for id_, address in gone[:4]:
        bounce(sent, id_, address)
    assert notifier("suppressions", "add", "ann@example.com").code == 0
    given = ("suppressions", "lift", "--source", "bounce", "--since", "1h")
    tried = notifier(*given, "--dry-run")
    assert (tried.code, "4 would be lifted" in tried.out, suppressed(sent)) == (0, True, 5)
    assert notifier(*given).code == 2
    assert "say since when" in " ".join(notifier("suppressions", "lift", "--source", "bounce").err.split())
    assert notifier(*given, "--reason", "hard_bounc").code == 2
    assert notifier(*given, "--provider", "other", "--why", "x").code == 1
    done = notifier(*given, "--provider", "smtp", "--reason", "our sender was refused")
    assert (done.code, "4 lifted" in done.out, suppressed(sent)) == (0, True, 1)
    [past] = sent.services.suppressions.find(Channel.EMAIL, gone[0][1])
    assert past.state == "lifted"
    assert str(past.lifted_by).startswith("operator:")
    assert past.lifted_detail == "our sender was refused"
    assert notifier(*given, "--why", "again").code == 1


def test_soft_bounces_from_before_a_lift_count_no_more(sent: Mails, notifier: CommandLine) -> None:
    for _ in range(3):
        sent.bounce(mails.POSTFIX_FULL, sent.send())
    assert len(sent.suppressed()) == 1
    assert notifier("suppressions", "lift", "zoe@example.net").code == 0
    sent.bounce(mails.POSTFIX_FULL, sent.send())
    assert sent.suppressed() == []


def test_a_late_failure_of_what_arrived_moves_nothing_and_suppresses_nobody(sent: Mails) -> None:
    id_ = sent.send()
    sent.bounce(mails.POSTFIX.replace("Action: failed", "Action: delivered").replace("5.1.1", "2.0.0"), id_)
    assert sent.state(id_)[0] == Status.DELIVERED
    assert sent.bounce(mails.POSTFIX, id_) is Taken.RECORDED
    for _ in range(4):
        words = "undelivered: unknown number (code 30005)"
        late = Report("4F1A2", words, Status.UNDELIVERED, Reason.INVALID_RECIPIENT, suppress=True)
        sent.services.receipts.record(id_, 1, ["smtp"], late)
    assert sent.state(id_)[0] == Status.DELIVERED
    assert (sent.suppressed(), held(sent)) == ([], 0)
