"""The GSM alphabet."""

from __future__ import annotations

import pytest

from notifier.domain import gsm7


@pytest.mark.parametrize(("text", "fits"), [("", True), ("Café {5 €}\n", True), ("Reçu", False), ("👍", False)])
def test_a_text_fits_if_every_character_does(text: str, fits: bool) -> None:
    assert gsm7.fits_gsm(text) is fits
