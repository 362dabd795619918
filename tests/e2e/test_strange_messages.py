"""Strange messages on every queue of a running service: nothing is lost, and no program ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.profiles import is_full
from tests.support.strange.attacking import attack, is_right

pytestmark = pytest.mark.timeout(180)

#: The long form is `python -m chaos.strange`.
COUNT, SEED = 600 if is_full() else 150, 1


def test_whatever_is_published_is_accepted_rejected_or_a_duplicate_and_the_processes_stay(
    database_url: str, broker_url: str, tmp_path: Path
) -> None:
    figures = attack(database_url, broker_url, tmp_path, count=COUNT, seed=SEED)
    assert is_right(figures), figures
    assert figures["accepted"] >= figures["kinds"]["good"]
    assert figures["rejected"]
