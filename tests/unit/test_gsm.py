"""The GSM alphabet."""

from __future__ import annotations

import pytest

from notifier import gsm


@pytest.mark.parametrize(("text", "fits"), [("", True), ("Café {5 €}\n", True), ("Reçu", False), ("👍", False)])
def test_a_text_fits_if_every_character_does(text: str, fits: bool) -> None:
    assert gsm.fits_gsm(text) is fits
