"""Every shape of the corpus is read, and means what it says."""

from __future__ import annotations

import pytest

from notifier.feedback.bounce_meaning import Meaning, Whose, is_believable, meaning_of
from notifier.feedback.bounce_parser import read_mail
from notifier.feedback.bounce_report import Bounce, Complaint
from tests.support.bounce_corpus import RECIPIENT, RETURN_PATH, SENDER, SHAPES, Shape


def whose(address: str) -> Whose:
    if address.lower() == RECIPIENT:
        return Whose.THEIRS
    return Whose.OURS if address.lower() in (SENDER, RETURN_PATH) else Whose.OTHERS


def effect(meaning: Meaning) -> str:
    named = {"dead": meaning.is_dead, "soft": meaning.is_soft, "behind": meaning.is_behind}
    return next((name for name, holds in named.items() if holds), "none")


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len(SHAPES) >= 80
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_means_what_it_says(shape: Shape) -> None:
    read = read_mail(shape.mail)
    report = read.report
    if isinstance(report, Complaint):
        assert shape.kind == "complaint"
        assert RETURN_PATH in report.return_paths
        return
    if report is None or (isinstance(report, Bounce) and not is_believable(report, whose)):
        assert shape.kind == ("reply" if read.is_reply else "unread")
        return
    meaning = meaning_of(report, whose)
    assert (str(report.action), effect(meaning)) == (shape.kind, shape.effect), (report, meaning)
    assert report.answer.enhanced == shape.code or shape.kind == "delivered"
    if shape.reason:
        assert meaning.reason == shape.reason
