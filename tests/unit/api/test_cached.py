"""Answers that are kept for a moment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from notifier.api.readiness import CachedAnswer


def test_it_asks_once_while_the_answer_is_good() -> None:
    asked: list[int] = []
    for seconds, times in ((60.0, 1), (-1.0, 3)):
        asked.clear()
        kept = CachedAnswer(lambda: asked.append(1) or len(asked), seconds)
        assert [kept.get() for _ in range(3)][-1] == len(asked) == times


def test_a_failure_is_not_kept() -> None:
    answers: Iterator[int | OSError] = iter([OSError("away"), 7])

    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    kept = CachedAnswer(ask, 60)
    with pytest.raises(OSError, match="away"):
        kept.get()
    assert kept.get() == 7
