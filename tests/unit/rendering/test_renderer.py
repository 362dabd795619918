from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.errors import NotFound, RenderingFailed, TemplateInvalid
from notifier.domain.statuses import Channel, OnUnknown
from notifier.rendering import Rendered, Renderer, Segments

from .conftest import MakeTemplate


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


#: By this clock every file was changed a moment ago, however slow this machine is.
_JUST_NOW = partial(float, 0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _edit(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    # Two edits within one tick of the file system's clock would look like none.
    stamp = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(stamp, stamp))


def _settle(renderer: Renderer, clock: Clock) -> None:
    """Let the renderer look twice: once to see a change, once to see that it stands still."""
    for _ in range(2):
        clock.now += 1
        renderer.check_context(Channel.EMAIL, "hello", {})


def _text(renderer: Renderer, locale: str | None = None, name: str = "Ada") -> str:
    return renderer.render(Channel.EMAIL, "hello", locale, {"name": name}).text.strip()


def test_render_makes_every_part_of_a_mail(make_template: MakeTemplate) -> None:
    root = make_template(html="<p>{{ name }}</p>\n", files={"subject.txt": "For {{ name }}\n"})
    renderer = Renderer(root)
    version = renderer.template(Channel.EMAIL, "hello").version
    expected = Rendered("hello", version, "en", "For Ada", "Hello Ada\n", "<p>Ada</p>", None)
    assert renderer.render(Channel.EMAIL, "hello", None, {"name": "Ada"}) == expected


def test_render_counts_the_segments_of_an_sms_and_trims_it(make_template: MakeTemplate) -> None:
    root = make_template("sms/hello", body="\n  5{{ name }}€  \n\n")
    rendered = Renderer(root).render(Channel.SMS, "hello", None, {"name": "\u202f"})
    assert (rendered.subject, rendered.text, rendered.html) == ("", "5 €", None)
    assert rendered.segments == Segments("GSM-7", 1, 4)


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (None, "en"),
        ("en-GB", "en"),
        ("fr", "fr"),
        ("fr-CA", "fr"),
        ("fr-BE", "fr-BE"),
        ("FR_be", "fr-BE"),
        ("zh-CN", "zh-Hans"),
        ("zh", "zh-Hans"),
        ("zh-TW", "en"),
        ("de", "en"),
        ("not a locale", "en"),
    ],
)
def test_render_finds_the_best_locale(make_template: MakeTemplate, asked: str | None, got: str) -> None:
    files = {f"{locale}/body.txt": f"{locale} {{{{ name }}}}" for locale in ("fr", "fr-BE", "zh-Hans")}
    renderer = Renderer(make_template(body="en {{ name }}", files=files))
    assert _text(renderer, asked) == f"{got} Ada"
    assert renderer.render(Channel.EMAIL, "hello", asked, {"name": "Ada"}).locale == got


def test_a_locale_falls_back_file_by_file(make_template: MakeTemplate) -> None:
    files = {"fr/subject.txt": "Bonjour", "fr/body.txt": "fr", "fr-CA/body.txt": "fr-CA"}
    rendered = Renderer(make_template(html="<p>en</p>", files=files)).render(
        Channel.EMAIL, "hello", "fr-CA", {"name": "Ada"}
    )
    assert (rendered.subject, rendered.text, rendered.html) == ("Bonjour", "fr-CA\n", "<p>en</p>")


def test_numbers_follow_the_region_even_inside_of_imported_macros(make_template: MakeTemplate) -> None:
    shared = "{% macro price(x) %}{{ x | money('EUR') }} {{ 5 | money('EUR') }}{% endmacro %}"
    body = "{% from '_parts/price.txt' import price %}{{ price(3) }} {{ locale }}"
    root = make_template(body=body, files={"../_parts/price.txt": shared, "fr/body.txt": body})
    renderer = Renderer(root)
    assert _text(renderer) == "€3.00 €5.00 en"
    assert _text(renderer, "fr") == "3,00\u00a0€ 5,00\u00a0€ fr"


def test_a_producer_cannot_replace_the_locale(make_template: MakeTemplate) -> None:
    root = make_template(
        body="{{ locale }} {{ direction }}", files={"ar/body.txt": "{{ locale }} {{ direction }}"}
    )
    context = {"name": "Ada", "locale": "xx", "direction": "up"}
    assert Renderer(root).render(Channel.EMAIL, "hello", "en", context).text == "en ltr\n"
    assert Renderer(root).render(Channel.EMAIL, "hello", "ar-EG", context).text == "ar rtl\n"


def test_the_layout_is_localised_with_the_mail(make_template: MakeTemplate) -> None:
    body = "{% extends '_layout/base.txt' %}{% block content %}{{ name }}{% endblock %}"
    layout = "{% import '_layout/phrases.txt' as p %}{% block content %}{% endblock %}, {{ p.bye }}"
    files = {
        "../_layout/base.txt": layout,
        "../_layout/phrases.txt": "{% set bye = 'bye' %}",
        "../_layout/fr/phrases.txt": "{% set bye = 'au revoir' %}",
        "fr/subject.txt": "Bonjour",
    }
    renderer = Renderer(make_template(body=body, files=files))
    assert (_text(renderer), _text(renderer, "fr-CA")) == ("Ada, bye", "Ada, au revoir")


@pytest.mark.parametrize(
    "value", ["Ada\r\nBcc: eve@example.com", "Ada\n\n\tBcc", "Ada\u2028Bcc", "Ada\x0bBcc", "\n Ada \x85"]
)
def test_line_breaks_never_reach_a_subject(make_template: MakeTemplate, value: str) -> None:
    root = make_template(files={"subject.txt": "For\n{{ name }}\n"})
    subject = Renderer(root).render(Channel.EMAIL, "hello", None, {"name": value}).subject
    assert subject == "For " + " ".join(value.split())


@pytest.mark.parametrize("value", ["\x00", "a\x1bb", "\x7f", "\u0090", "", " \n", "a" * 999])
def test_a_subject_that_is_no_header_is_refused(make_template: MakeTemplate, value: str) -> None:
    renderer = Renderer(make_template(files={"subject.txt": "{{ name }}"}))
    with pytest.raises(RenderingFailed, match=r"email/hello/subject\.txt: "):
        renderer.render(Channel.EMAIL, "hello", None, {"name": value})


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    root = tmp_path_factory.mktemp("templates")
    folder = root / "email" / "hello"
    folder.mkdir(parents=True)
    for file, text in {"template.toml": 'description = "x"', "subject.txt": "{{ x }}", "body.txt": "x"}.items():
        folder.joinpath(file).write_text(text, "utf-8")
    return Renderer(root)


@given(value=st.text())
def test_a_subject_is_one_line_of_plain_characters_whatever_the_value(subjects: Renderer, value: str) -> None:
    try:
        subject = subjects.render(Channel.EMAIL, "hello", None, {"x": value}).subject
    except RenderingFailed:
        return
    assert len(subject.splitlines()) == 1
    assert all(ord(character) >= 32 and not 127 <= ord(character) <= 159 for character in subject)


@pytest.mark.parametrize(
    ("value", "problem"), [("a" * 1601, "at most 1600"), (" \n", "is empty"), ("\ud800", "half a character")]
)
def test_an_sms_that_cannot_be_sent_is_refused(make_template: MakeTemplate, value: str, problem: str) -> None:
    renderer = Renderer(make_template("sms/hello", body="{{ name }}"))
    with pytest.raises(RenderingFailed, match=problem):
        renderer.render(Channel.SMS, "hello", None, {"name": value})


def test_a_missing_variable_names_itself_and_its_line(make_template: MakeTemplate) -> None:
    renderer = Renderer(make_template(body="Hello\n{{ name }}"))
    with pytest.raises(RenderingFailed, match=r"^email/hello/body\.txt:2: 'name' is undefined$"):
        renderer.render(Channel.EMAIL, "hello", None, {})


def test_an_optional_variable_can_be_asked_for(make_template: MakeTemplate) -> None:
    toml = 'description = "x"\n[variables]\nname = { type = "string", required = false }\n'
    renderer = Renderer(make_template(toml=toml, body="Hello{% if name %} {{ name }}{% endif %}"))
    assert renderer.render(Channel.EMAIL, "hello", None, {}).text == "Hello\n"


def test_a_changed_file_is_picked_up_when_it_stood_still_for_a_second(
    make_template: MakeTemplate, clock: Clock
) -> None:
    root = make_template()
    renderer = Renderer(root, clock=clock, wall_clock=_JUST_NOW)
    before = renderer.template(Channel.EMAIL, "hello").version
    _edit(root / "email/hello/body.txt", "Good day {{ name }}")
    for seconds, expected in ((0.9, "Hello Ada"), (0.2, "Hello Ada"), (0.9, "Hello Ada"), (0.2, "Good day Ada")):
        clock.now += seconds
        assert _text(renderer) == expected
    assert renderer.template(Channel.EMAIL, "hello").version != before


def test_what_changed_long_ago_is_there_at_the_first_look(make_template: MakeTemplate, clock: Clock) -> None:
    root = make_template()
    written = time.time()
    renderer = Renderer(root, clock=clock, wall_clock=lambda: written + 3600)
    assert _text(renderer) == "Hello Ada"
    _edit(root / "email/hello/body.txt", "Good day {{ name }}")
    clock.now += 1
    assert _text(renderer) == "Good day Ada"


def test_files_that_are_still_being_written_are_left_alone(make_template: MakeTemplate, clock: Clock) -> None:
    root = make_template()
    renderer = Renderer(root, clock=clock, wall_clock=_JUST_NOW)
    assert _text(renderer) == "Hello Ada"
    for text in ("", "Good", "Good day", "Good day {{ name }}"):
        _edit(root / "email/hello/body.txt", text)
        clock.now += 1
        assert _text(renderer) == "Hello Ada"
    clock.now += 1
    assert _text(renderer) == "Good day Ada"


def test_a_new_locale_is_picked_up_and_a_removed_template_is_gone(
    make_template: MakeTemplate, clock: Clock
) -> None:
    root = make_template()
    renderer = Renderer(root, clock=clock, wall_clock=_JUST_NOW)
    assert _text(renderer, "fr") == "Hello Ada"
    make_template(files={"fr/body.txt": "Bonjour {{ name }}"})
    _settle(renderer, clock)
    assert _text(renderer, "fr") == "Bonjour Ada"
    (root / "email/hello").rename(root / "email/moved")
    clock.now += 1
    with pytest.raises(NotFound, match="no email template 'hello'"):
        _text(renderer)


def test_files_that_only_were_touched_keep_the_version(make_template: MakeTemplate, clock: Clock) -> None:
    root = make_template()
    renderer = Renderer(root, clock=clock, wall_clock=_JUST_NOW)
    before = renderer.template(Channel.EMAIL, "hello")
    _edit(root / "email/hello/body.txt", "Hello {{ name }}")
    _settle(renderer, clock)
    assert renderer.template(Channel.EMAIL, "hello") == before


def test_the_version_covers_the_layout_and_no_file_that_is_not_used(
    make_template: MakeTemplate, clock: Clock
) -> None:
    files = {"../_layout/base.txt": "{% block content %}{% endblock %}", "../_layout/unused.txt": "x"}
    root = make_template(body="{% extends '_layout/base.txt' %}", files=files)
    renderer = Renderer(root, clock=clock, wall_clock=_JUST_NOW)
    before = renderer.template(Channel.EMAIL, "hello").version
    _edit(root / "email/_layout/unused.txt", "y")
    _settle(renderer, clock)
    assert renderer.template(Channel.EMAIL, "hello").version == before
    _edit(root / "email/_layout/base.txt", "{% block content %}{% endblock %}!")
    _settle(renderer, clock)
    assert renderer.template(Channel.EMAIL, "hello").version != before


def test_a_template_that_breaks_stays_in_use_until_it_is_right_again(
    make_template: MakeTemplate, clock: Clock
) -> None:
    root = make_template()
    renderer = Renderer(root, clock=clock, wall_clock=_JUST_NOW)
    assert _text(renderer) == "Hello Ada"
    _edit(root / "email/hello/body.txt", "{% if %}")
    _settle(renderer, clock)
    assert _text(renderer) == "Hello Ada"
    _edit(root / "email/hello/body.txt", "Right {{ name }}")
    _settle(renderer, clock)
    assert _text(renderer) == "Right Ada"


def test_a_template_that_never_worked_is_invalid(make_template: MakeTemplate) -> None:
    renderer = Renderer(make_template(body="{% if %}"))
    with pytest.raises(TemplateInvalid) as caught:
        renderer.template(Channel.EMAIL, "hello")
    assert caught.value.name == "email/hello"
    assert caught.value.problems[0].startswith("email/hello/body.txt:1: error: ")


def test_what_is_not_there_is_not_found_with_near_names(make_template: MakeTemplate) -> None:
    renderer = Renderer(make_template("sms/hello"))
    with pytest.raises(NotFound, match="no sms template 'helo': use hello"):
        renderer.template(Channel.SMS, "helo")
    with pytest.raises(NotFound, match="there is none yet"):
        renderer.template(Channel.EMAIL, "hello")


@pytest.mark.parametrize("name", ["..", "../sms/hello", "_layout", "", ".", "hello/fr", "a\0b"])
def test_a_name_cannot_leave_the_folder(make_template: MakeTemplate, name: str) -> None:
    renderer = Renderer(make_template(files={"../_layout/template.toml": 'description = "x"'}))
    with pytest.raises(NotFound):
        renderer.render(Channel.EMAIL, name, None, {"name": "Ada"})


def test_names_lists_templates_and_no_shared_folders(make_template: MakeTemplate) -> None:
    make_template("email/zebra")
    renderer = Renderer(make_template(files={"../_layout/base.txt": "x"}))
    assert renderer.names(Channel.EMAIL) == ("hello", "zebra")
    assert renderer.names(Channel.SMS) == ()


def test_template_has_what_was_declared_and_the_defaults_of_its_channel(make_template: MakeTemplate) -> None:
    toml = 'description = "A code."\nsender = "shop"\nmax_segments = 1\n[variables]\n'
    variables = 'code = { type = "string", secret = true }\nminutes = { type = "integer" }\n'
    make_template("sms/code", toml=toml + variables, body="{{ code }} {{ minutes }}", files={"fr/body.txt": "x"})
    renderer = Renderer(make_template())
    template = renderer.template(Channel.SMS, "code")
    assert (template.sender, template.max_segments, template.locales) == ("shop", 1, ("en", "fr"))
    assert template.secret_names == {"code"}
    assert template.on_unknown is OnUnknown.HOLD
    assert renderer.template(Channel.EMAIL, "hello").on_unknown is OnUnknown.RESEND


@pytest.mark.parametrize(
    ("name", "context", "expected"),
    [
        ("hello", {"name": "Ada", "surplus": 1}, []),
        ("hello", {}, [("context.name", "missing_variable")]),
        ("hello", {"name": 1}, [("context.name", "wrong_type")]),
        ("helo", {"name": "Ada"}, [("template", "unknown_template")]),
        ("../hello", {}, [("template", "unknown_template")]),
        ("broken", {}, [("template", "template_invalid")]),
    ],
)
def test_check_context_says_what_is_wrong_and_never_raises(
    make_template: MakeTemplate, name: str, context: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    make_template("email/broken", toml="x")
    faults = Renderer(make_template()).check_context(Channel.EMAIL, name, context)
    assert [(fault.field, fault.code) for fault in faults] == expected


def test_many_threads_render_while_the_template_changes(make_template: MakeTemplate, clock: Clock) -> None:
    root = make_template(body="{{ name }} 0 {{ name }} 0")
    renderer = Renderer(root, clock=clock, wall_clock=_JUST_NOW)
    assert _text(renderer, name="n") == "n 0 n 0"
    done = threading.Event()

    def render() -> set[str]:
        seen = set()
        while not done.is_set():
            seen.add(_text(renderer, name="n"))
        return seen

    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(render) for _ in range(3)]
        for edition in range(1, 5):
            _edit(root / "email/hello/body.txt", f"{{{{ name }}}} {edition} {{{{ name }}}} {edition}")
            _settle(renderer, clock)
        done.set()
    # Whole texts only: no rendering saw half of an edition.
    seen = set[str]().union(*(result.result() for result in results))
    assert seen <= {f"n {edition} n {edition}" for edition in range(5)}
