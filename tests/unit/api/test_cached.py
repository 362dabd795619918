"""Answers that are kept for a moment."""

from __future__ import annotations

import pytest

from notifier.api.cached import Kept


def test_it_asks_once_while_the_answer_is_good() -> None:
    asked: list[int] = []
    for seconds, times in ((60.0, 1), (-1.0, 3)):
        asked.clear()
        kept = Kept(lambda: asked.append(1) or len(asked), seconds)  # type: ignore[func-returns-value]
        assert [kept.get() for _ in range(3)][-1] == len(asked) == times


def test_a_failure_is_not_kept() -> None:
    answers = iter([OSError("away"), 7])

    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    kept = Kept(ask, 60)
    with pytest.raises(OSError, match="away"):
        kept.get()
    assert kept.get() == 7
