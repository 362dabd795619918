"""One mailbox in all its spellings is one recipient: suppressed, counted, searched for and complaining as one."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from notifier.domain.errors import InvalidMessage
from notifier.domain.statuses import Channel, Status, SuppressionReason
from notifier.feedback.suppression_csv import Bad, SuppressionDefaults
from notifier.security.recipient_hash import HashKey
from notifier.store.engine import transaction
from notifier.store.personal_data import PersonalData
from notifier.store.re_encryption import Resealing
from notifier.store.records import Guard, NewAttempt, NewSuppression
from notifier.store.search import Filter
from tests.support import bounce_mails as mails
from tests.support.bounced import KEY, Mails
from tests.support.templates import write_templates

U_LABEL, A_LABEL = "zoe@bücher.example", "zoe@xn--bcher-kva.example"
SPELLINGS = (
    U_LABEL,
    A_LABEL,
    unicodedata.normalize("NFD", U_LABEL),
    "zoe@bücher。example",
    "Zoe Müller <Zoe@BÜCHER.Example>",
)
FULLWIDTH = "+１５５５０１００１８４"


@pytest.fixture
def sent(database_url: str, tmp_path: Path) -> Iterator[Mails]:
    mails = Mails(database_url, write_templates(tmp_path / "templates"))
    yield mails
    mails.services.close()


def earlier_hash(address: str) -> bytes:
    """What an address was hashed as before: as it is written, in lower case."""
    return HashKey(KEY).digest("recipient", Channel.EMAIL, address.lower())


def attempt(sent: Mails, to: str) -> bool:
    """Whether a call for this recipient may begin."""
    [claim] = sent.services.ledger.claim([sent.accept(to)], lease_seconds=60)
    hashes = tuple(HashKey(KEY).recipient_forms(Channel.EMAIL, claim.recipient))
    guard = Guard(hashes, "sender:default", None, False)
    return bool(sent.services.ledger.start_attempts([NewAttempt(claim, "smtp", guard)], margin_seconds=5))


def suppress(sent: Mails, **more: Any) -> bool:
    given = {"channel": Channel.EMAIL, "reason": SuppressionReason.OPTED_OUT, "source": "operator:ann", **more}
    return sent.services.suppressions.add(**given)


def become_earlier(sent: Mails, id_: Any, address: str) -> None:
    """As the version before wrote it."""
    with transaction(sent.services.engine) as connection:
        connection.execute(
            text("UPDATE messages SET address = :address, address_hash = :hash WHERE id = :id"),
            {"address": address.lower(), "hash": earlier_hash(address), "id": id_},
        )


@pytest.mark.parametrize("suppressed", SPELLINGS, ids=ascii)
def test_who_is_suppressed_in_one_spelling_is_in_all(sent: Mails, suppressed: str) -> None:
    assert suppress(sent, address=suppressed)
    assert not any(suppress(sent, address=other) for other in SPELLINGS)
    assert all(len(sent.suppressed(other)) == 1 for other in SPELLINGS)
    assert not any(attempt(sent, other) for other in SPELLINGS)
    assert attempt(sent, "zoe@buecher.example")
    lift = sent.services.suppressions.lift
    assert lift(channel=Channel.EMAIL, address=SPELLINGS[3], source="operator:ann")
    assert all(attempt(sent, other) for other in SPELLINGS)


def test_a_file_is_imported_by_identity(sent: Mails) -> None:
    lines = ["address", *SPELLINGS[:4], FULLWIDTH]
    defaults = SuppressionDefaults(reason=SuppressionReason.MANUAL, source="import:ann")
    bad: list[Bad] = []
    done = sent.services.suppression_files.read(io.StringIO("\n".join(lines)), defaults, bad.append)
    assert (done.new, done.known, done.bad) == (1, 3, 1)
    assert [fault.code for fault in bad[0].faults] == ["not_e164"]


def test_what_was_sent_is_found_in_every_spelling_and_shown_as_it_was_written(sent: Mails) -> None:
    ids = {sent.send(spelling) for spelling in SPELLINGS}
    for spelling in SPELLINGS:
        found = sent.services.audit.search(Filter(recipient=spelling))
        assert {note.id for note in found} == ids
        assert {note.recipient for note in found} == set(SPELLINGS)


def test_a_cap_counts_all_spellings_as_one(sent: Mails) -> None:
    hashes = {HashKey(KEY).recipient(Channel.EMAIL, spelling) for spelling in SPELLINGS}
    claims = sent.services.ledger.claim([sent.accept(spelling) for spelling in SPELLINGS], lease_seconds=60)
    assert len(claims) == len(SPELLINGS)
    assert {HashKey(KEY).recipient(Channel.EMAIL, claim.address) for claim in claims} == hashes
    assert len(hashes) == 1


@pytest.mark.parametrize("named", [A_LABEL, A_LABEL.upper(), U_LABEL])
def test_a_complaint_in_another_spelling_is_about_the_same_recipient(sent: Mails, named: str) -> None:
    id_ = sent.send(SPELLINGS[3])
    sent.bounce(mails.COMPLAINT, id_, "bounces@example.com", recipient=named)
    assert [one.reason for one in sent.suppressed(U_LABEL)] == ["complaint"]


@pytest.mark.parametrize("number", [FULLWIDTH, "+١٥٥٥٠١٠٠١٢٣", "+1555010٠123"], ids=ascii)
def test_a_number_in_other_digits_is_refused_by_every_door(sent: Mails, number: str) -> None:
    given = {"channel": Channel.SMS, "address": number}
    for refuse in (
        lambda: suppress(sent, **given),
        lambda: sent.services.suppressions.lift(source="operator:ann", **given),  # type: ignore[arg-type]
        lambda: sent.services.suppressions.find(**given),  # type: ignore[arg-type]
        lambda: Filter(recipient=number),
    ):
        with pytest.raises(InvalidMessage) as refused:
            refuse()
        assert [fault.code for fault in refused.value.faults] == ["not_e164"]


def test_a_suppression_of_the_version_before_goes_on_to_hold(sent: Mails) -> None:
    """It holds only a hash, of one spelling: that of the domain's own script, most likely."""
    old = NewSuppression(
        earlier_hash(U_LABEL),
        HashKey(KEY).fingerprint,
        Channel.EMAIL,
        "global",
        SuppressionReason.OPTED_OUT,
        "operator:ann",
    )
    assert sent.services.suppressions.keep(old)
    assert not any(attempt(sent, other) for other in SPELLINGS)
    assert all(len(sent.suppressed(other)) == 1 for other in SPELLINGS)


@pytest.mark.parametrize("is_sealed", [False, True])
def test_resealing_brings_rows_and_suppressions_to_their_identity(
    database_url: str, tmp_path: Path, is_sealed: bool
) -> None:
    keys: dict[str, Any] = {"encryption_keys": "k1:" + "A" * 43 + "="} if is_sealed else {}
    sent = Mails(database_url, write_templates(tmp_path / "templates"), **keys)
    rows = {spelling: sent.send(spelling) for spelling in SPELLINGS}
    plain = sent.send("ann@example.com")
    for spelling, id_ in rows.items():
        become_earlier(sent, id_, spelling.rpartition("<")[2].removesuffix(">"))
    nfd = SPELLINGS[2]
    old = NewSuppression(
        earlier_hash(nfd),
        HashKey(KEY).fingerprint,
        Channel.EMAIL,
        "global",
        SuppressionReason.MANUAL,
        "import:ann",
    )
    assert sent.services.suppressions.keep(old)
    assert attempt(sent, A_LABEL)
    resealing = Resealing(sent.services.engine, PersonalData(HashKey(KEY), sent.services.sealer))
    done = resealing.run()
    # That of the A-label was right, and so was the plain one.
    assert (done.changed, done.suppressions) == (len(SPELLINGS) - 1, 1)
    with transaction(sent.services.engine) as connection:
        hashes = connection.execute(text("SELECT DISTINCT address_hash FROM notifications")).scalars().all()
    expected = {HashKey(KEY).recipient(Channel.EMAIL, address) for address in (A_LABEL, "ann@example.com")}
    assert {bytes(value) for value in hashes} == expected
    assert not attempt(sent, A_LABEL)
    assert {sent.story(id_).notification.recipient for id_ in rows.values()} == set(SPELLINGS)
    assert sent.state(plain)[0] == Status.SENT
    assert resealing.run().changed == 0
    sent.services.close()
