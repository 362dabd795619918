"""The reference page says what the tables say."""

from __future__ import annotations

from pathlib import Path

from notifier.providers.codes_page import page

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "provider-codes.md"


def test_the_page_of_provider_codes_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), (
        "python -m notifier.providers.codes_page > docs/reference/provider-codes.md"
    )
