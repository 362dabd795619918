"""What a changelog needs before its version is tagged."""

from __future__ import annotations

import pytest

from tests.provisioning.release import changelog_problems

RELEASED = "## [0.2.0] - 2026-12-01\n\n- Something\n\n## [0.1.0] - 2026-11-30\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (RELEASED, ""),
        (f"## [Unreleased]\n\n{RELEASED}", ""),
        (f"## [Unreleased]\n\n- More\n\n{RELEASED}", "still under Unreleased"),
        (RELEASED.replace("] - 2026-12-01", "]"), "YYYY-MM-DD"),
        (RELEASED.replace("0.2.0", "0.3.0"), "the newest version is 0.3.0"),
        ("## [Unreleased]\n", "the newest version is none"),
    ],
)
def test_the_newest_heading_is_that_of_the_version(text: str, problem: str) -> None:
    found = "; ".join(changelog_problems(text, "0.2.0"))
    assert problem in found
    assert bool(found) == bool(problem)
