"""The templates that ship with notifier: every sample in every locale, and what a mail client must find there."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

from notifier.config.settings import bundled
from notifier.domain.statuses import Channel, OnUnknown
from notifier.rendering import Rendered, Renderer, check_templates

ROOT = bundled("templates")
RENDERER = Renderer(ROOT)
#: Elements that have no end tag.
VOID = {"br", "meta"}
LOCALES = ("en", "fr", "zh-Hans")
#: Not the shop's: for those who run the service, in English and without a link, or of no language at all.
OURS = ("daily_report", "heartbeat", "raw_email")


class Case(NamedTuple):
    channel: Channel
    name: str
    sample: str
    locale: str


def _cases(channel: Channel) -> list[Case]:
    templates = [RENDERER.template(channel, name) for name in RENDERER.names(channel)]
    return [
        Case(channel, template.name, sample.name, locale)
        for template in templates
        for sample in template.samples
        for locale in ([sample.locale] if sample.locale else template.locales)
    ]


def _render(case: Case) -> Rendered:
    samples = RENDERER.template(case.channel, case.name).samples
    (context,) = (sample.context for sample in samples if sample.name == case.sample)
    return RENDERER.render(case.channel, case.name, case.locale, context)


class Outline(HTMLParser):
    """Tags, attributes and links of one mail; complains about tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def values(self, tag: str, attribute: str) -> list[str | None]:
        return [attributes.get(attribute) for name, attributes in self.tags if name == tag]


def test_every_shipped_template_is_right() -> None:
    assert [str(problem) for problem in check_templates(ROOT)] == []


def test_the_shop_has_its_templates_in_three_languages() -> None:
    names = {channel: [name for name in RENDERER.names(channel) if name not in OURS] for channel in Channel}
    assert names[Channel.EMAIL] == ["order_shipped", "password_reset", "receipt", "weekly_digest"]
    assert names[Channel.SMS] == ["appointment_reminder", "login_code"]
    for channel in Channel:
        assert {RENDERER.template(channel, name).locales for name in names[channel]} == {LOCALES}


# A heartbeat is text alone, and a raw mail what its producer wrote.
@pytest.mark.parametrize(
    "case", [one for one in _cases(Channel.EMAIL) if one.name not in ("heartbeat", "raw_email")], ids="/".join
)
def test_every_mail_is_sound_html(case: Case) -> None:
    rendered = _render(case)
    assert rendered.html is not None
    outline = Outline(rendered.html)
    assert outline.open == []
    assert outline.values("html", "lang") == [case.locale]
    assert len(outline.values("h1", "class")) == 1
    layout_tables = [attributes for tag, attributes in outline.tags if tag == "table"]
    assert layout_tables
    assert len(rendered.html.encode()) < 102_000, "Gmail cuts a mail off at 102 KB"


@pytest.mark.parametrize("case", _cases(Channel.EMAIL), ids="/".join)
def test_every_mail_loads_nothing_from_elsewhere(case: Case) -> None:
    html = _render(case).html or ""
    assert not re.search(r"<(img|script|link|iframe|form)\b|@import|url\(|src=", html)
    links = Outline(html).values("a", "href")
    assert bool(links) == (case.name not in OURS)
    assert all(
        re.match(r"https://[a-z]+\.example\.com/|mailto:[a-z]+@shop\.example\.com$", str(link)) for link in links
    )


@pytest.mark.parametrize("case", _cases(Channel.EMAIL), ids="/".join)
def test_text_and_html_of_a_mail_have_the_same_links(case: Case) -> None:
    rendered = _render(case)
    for link in Outline(rendered.html or "").values("a", "href"):
        if str(link).startswith("https://") and link != "https://shop.example.com/":
            assert str(link) in rendered.text


@pytest.mark.parametrize("case", _cases(Channel.EMAIL) + _cases(Channel.SMS), ids="/".join)
def test_no_rendering_shows_the_works(case: Case) -> None:
    rendered = _render(case)
    for part in (rendered.subject, rendered.text, rendered.html or ""):
        assert not re.search(r"\{\{|\{%|None|Undefined|\[object", part)
        assert "  \n" not in part


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("email/*/fr/*.*")), ids=lambda path: f"{path.parts[-3]}/{path.name}"
)
def test_french_puts_no_break_spaces_before_its_double_signs(path: Path) -> None:
    source = path.read_text("utf-8").replace("&nbsp;", "\u00a0")
    words = re.sub(r"\{%.*?%\}|<[^>]+>", "\n", re.sub(r"\{\{.*?\}\}", "x", source))
    assert not re.search(r"[^\u00a0\s][:;!?»](\s|$)|[ \t][:;!?»]|«[^\u00a0]", words)


def test_a_login_code_is_one_segment_and_is_held_when_unsure() -> None:
    template = RENDERER.template(Channel.SMS, "login_code")
    assert template.on_unknown is OnUnknown.HOLD
    assert template.secret_names == {"code"}
    for locale in LOCALES:
        found = RENDERER.render(Channel.SMS, "login_code", locale, {"code": "482913", "valid_minutes": 10})
        assert found.segments is not None
        assert found.segments.count == 1


@pytest.mark.parametrize("month", range(1, 13))
@pytest.mark.parametrize("locale", LOCALES)
def test_a_reminder_keeps_its_budget_in_every_month(month: int, locale: str) -> None:
    context = {
        "service": "Bike repair",
        "starts_at": f"2026-{month:02}-23T14:30:00+01:00",
        "place": "12 Example Street",
        "phone": "+1 555 010 0142",
    }
    found = RENDERER.render(Channel.SMS, "appointment_reminder", locale, context)
    assert found.segments is not None
    assert found.segments.count <= (1 if locale == "en" else 2)


def test_secrets_of_the_password_mail_are_declared() -> None:
    assert RENDERER.template(Channel.EMAIL, "password_reset").secret_names == {"reset_url", "code"}
