from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.rendering.locales import canonical, fallbacks, formats_for, is_tag, same_language


@pytest.mark.parametrize(
    ("tag", "chain"),
    [
        ("fr", ("fr", "fr-Latn")),
        ("fr-CA", ("fr-CA", "fr-Latn-CA", "fr-Latn", "fr")),
        ("FR_ca", ("fr-CA", "fr-Latn-CA", "fr-Latn", "fr")),
        ("zh-CN", ("zh-CN", "zh-Hans-CN", "zh-Hans", "zh")),
        ("zh", ("zh", "zh-Hans")),
        ("zh-TW", ("zh-TW", "zh-Hant-TW", "zh-Hant")),
        ("zh-Hans-SG", ("zh-Hans-SG", "zh-Hans", "zh-SG", "zh")),
        ("sr-Latn", ("sr-Latn",)),
        ("de-CH-1996", ("de-CH-1996", "de-CH", "de-Latn-CH", "de-Latn", "de")),
        ("es-419", ("es-419", "es-Latn-419", "es-Latn", "es")),
        ("xx-YY", ("xx-YY", "xx")),
        ("../etc", ()),
        ("", ()),
    ],
)
def test_fallbacks_go_from_the_region_to_the_language(tag: str, chain: tuple[str, ...]) -> None:
    assert fallbacks(tag) == chain


@given(st.text(max_size=40))
def test_fallbacks_never_raises_and_never_leaves_the_shape_of_tags(text: str) -> None:
    assert all(is_tag(tag) for tag in fallbacks(text))


@given(st.from_regex(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}", fullmatch=True))
def test_fallbacks_begin_with_the_tag_itself(tag: str) -> None:
    assert fallbacks(tag)[0] == canonical(tag)


@pytest.mark.parametrize(
    ("requested", "written", "expected"),
    [
        ("fr-CA", "fr", "fr_CA"),
        ("en-GB", "en", "en_GB"),
        ("en-GB", "fr", "fr"),
        ("zh-TW", "zh-Hans", "zh_Hans"),
        ("fr-XX", "fr", "fr"),
        (None, "fr", "fr"),
        ("nonsense!", "fr", "fr"),
    ],
)
def test_numbers_follow_the_region_of_the_reader_within_the_language(
    requested: str | None, written: str, expected: str
) -> None:
    assert str(formats_for(requested, written)) == expected


def test_the_scripts_of_chinese_are_two_languages() -> None:
    assert same_language("zh-CN", "zh-Hans")
    assert not same_language("zh-TW", "zh-Hans")
