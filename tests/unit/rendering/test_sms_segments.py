from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.gsm7 import GSM_BASIC, GSM_EXTENSION
from notifier.rendering import Segments, segments
from notifier.rendering.sms_segments import outside_gsm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Segments("GSM-7", 0, 0)),
        ("a" * 160, Segments("GSM-7", 1, 160)),
        ("a" * 161, Segments("GSM-7", 2, 161)),
        ("a" * 306, Segments("GSM-7", 2, 306)),
        ("a" * 307, Segments("GSM-7", 3, 307)),
        ("a" * 459, Segments("GSM-7", 3, 459)),
        ("€" * 80, Segments("GSM-7", 1, 160)),
        ("€" * 80 + "a", Segments("GSM-7", 2, 161)),
        ("验" * 70, Segments("UCS-2", 1, 70)),
        ("验" * 71, Segments("UCS-2", 2, 71)),
        ("验" * 134, Segments("UCS-2", 2, 134)),
        ("验" * 135, Segments("UCS-2", 3, 135)),
        ("😀" * 35, Segments("UCS-2", 1, 70)),
        ("😀" * 35 + "a", Segments("UCS-2", 2, 71)),
    ],
)
def test_segments_counts_known_texts(text: str, expected: Segments) -> None:
    assert segments(text) == expected


def test_an_extension_character_is_not_split_between_two_segments() -> None:
    # 152 septets are used, the pair needs two, the segment has 153: one septet stays empty.
    exact = "a" * 152 + "€" + "a" * 151
    assert segments(exact) == Segments("GSM-7", 2, 305)
    assert segments(exact + "a") == Segments("GSM-7", 3, 306)
    assert segments("a" * 306).count == 2


def test_a_surrogate_pair_is_not_split_between_two_segments() -> None:
    exact = "验" * 66 + "😀" + "验" * 65
    assert segments(exact) == Segments("UCS-2", 2, 133)
    assert segments(exact + "验") == Segments("UCS-2", 3, 134)
    assert segments("验" * 134).count == 2


@pytest.mark.parametrize("character", "éèùìòàäöñüÇÉÅåØøÆæß§¿¡£¥@Δ\n")
def test_letters_of_the_gsm_alphabet_take_one_septet(character: str) -> None:
    assert segments(character) == Segments("GSM-7", 1, 1)


@pytest.mark.parametrize("character", "çêâîôûëïœáíóú’“«»–…\u00a0\u202fŁ")
def test_letters_outside_of_the_gsm_alphabet_force_ucs2(character: str) -> None:
    assert segments(character + "abc").encoding == "UCS-2"


def test_the_alphabet_has_the_size_of_the_standard() -> None:
    # 128 codes less the escape; ten extension characters with the page break.
    assert (len(GSM_BASIC), len(GSM_EXTENSION)) == (127, 10)
    assert not GSM_BASIC & GSM_EXTENSION


def test_outside_gsm_names_each_foreign_character_once() -> None:
    assert outside_gsm("août, forêt, août") == ("û", "ê")


def _filled(widths: list[int], room: int) -> int:
    """The definition, spelled out: put each character whole into the last segment that has room, or a new one."""
    bins = [0]
    for width in widths:
        if bins[-1] + width > room:
            bins.append(0)
        bins[-1] += width
    return len(bins)


_SMS = st.text(st.sampled_from("aé€^\n验😀ç") | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400)


@given(_SMS)
def test_segments_agrees_with_the_definition(text: str) -> None:
    found = segments(text)
    is_gsm = all(character in GSM_BASIC | GSM_EXTENSION for character in text)
    if is_gsm:
        widths, alone, joined = [1 + (character in GSM_EXTENSION) for character in text], 160, 153
    else:
        widths, alone, joined = [len(character.encode("utf-16-le")) // 2 for character in text], 70, 67
    assert found.encoding == ("GSM-7" if is_gsm else "UCS-2")
    assert found.units == sum(widths)
    assert found.count == (1 if sum(widths) <= alone else _filled(widths, joined))
