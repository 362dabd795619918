from __future__ import annotations

from pathlib import Path

import pytest

from notifier.domain.statuses import Channel
from notifier.rendering import Renderer, Severity, TemplateChecks, TemplateProblem, check_templates

from .conftest import MakeTemplate

HEAD = 'description = "A greeting."\n'
NAME = '[variables]\nname = { type = "string" }\n'
SAMPLE = '[[samples]]\nname = "plain"\ncontext = { name = "Ada" }\n'


def _found(root: Path) -> list[str]:
    return [str(problem) for problem in check_templates(root)]


def test_a_template_that_is_right_has_no_problems(make_template: MakeTemplate) -> None:
    assert _found(make_template(html="<p>{{ name }}</p>")) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Hello\n{{ name }} {% if %}", "body.txt:2: error: Expected an expression, got 'end of statement block'"),
        ("Hello\n{% if name %}", "body.txt:2: error: Unexpected end of template"),
        ("{{ name }}\n{{ nmae }}", "body.txt:2: error: nmae is not declared"),
        ("\n\n{{ name | mony }}", "body.txt:3: error: there is no filter mony: use money"),
        ("{% if 1 %}{{ name | mony }}{% endif %}", "body.txt:1: error: there is no filter mony"),
        ("{% filter mony %}{{ name }}{% endfilter %}", "body.txt:1: error: there is no filter mony"),
        ("{{ name is evn }}", "body.txt:1: error: there is no test evn: use even"),
        ("{{ name }}{% include '_x/y.txt' %}", "body.txt:1: error: there is no file _x/y.txt"),
        ("{% include name %}", "body.txt:1: error: include needs the name of a file in quotes"),
        ("{{ name * 3 }}", "body.txt:1: error: templates do not multiply"),
        ("{{ name.__class__ }}", "body.txt:1: error: __class__ is private"),
        ("Hello", "template.toml: warning: variables.name: no part uses it"),
        (
            "{{ name.first }}",
            "sample 'plain' in en: email/hello/body.txt:1: 'str object' has no attribute 'first'",
        ),
    ],
)
def test_check_finds_what_is_wrong_with_a_part(make_template: MakeTemplate, body: str, expected: str) -> None:
    assert expected in "\n".join(_found(make_template(body=body)))


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("description =", "template.toml: error: not valid TOML"),
        ("a = 1\nb =\n", "template.toml:2: error: not valid TOML: Invalid value"),
        (NAME + SAMPLE, "template.toml: error: description: is missing"),
        (HEAD + "colour = 1\n" + NAME, "error: colour: unknown key"),
        (HEAD + '[variables]\nname = { type = "strng" }', "error: variables.name.type: input should be"),
        (
            HEAD + '[variables]\nname = { type = "string", requird = 1 }',
            "error: variables.name.requird: unknown key",
        ),
        (HEAD + '[variables]\nloop = { type = "string" }', "error: variables.loop: not a name for a variable"),
        (
            HEAD + '[variables]\nlocale = { type = "string" }',
            "error: variables.locale: every template has this name",
        ),
        (
            HEAD + '[variables]\nname = { type = "string", default = "x" }',
            "error: variables.name: a default is for",
        ),
        (
            HEAD + '[variables]\nname = { type = "integer", default = "x", required = false }',
            "error: variables.name: the default is not of the declared type",
        ),
        (HEAD + '[variables]\nname = { type = "string", of = { type = "string" } }', "`of` is for lists"),
        (HEAD + '[variables]\nname = { type = "list", fields = { a = { type = "string" } } }', "`fields` is for"),
        (HEAD + "max_segments = 1\n" + NAME + SAMPLE, "error: max_segments: is for SMS only"),
        (HEAD + 'default_locale = "EN"\n', "error: default_locale: not a language tag in its usual spelling"),
        (HEAD + 'on_unknown = "maybe"\n', "error: on_unknown: input should be 'resend' or 'hold'"),
        (HEAD + 'category = "a b"\n', "error: category: string should match pattern"),
        (HEAD + NAME, "error: there are no [[samples]]"),
        (HEAD + NAME + '[[samples]]\nname = "x"\n', "error: sample 'x': context.name: is missing"),
        (
            HEAD + NAME + '[[samples]]\nname = "x"\ncontext = { name = 1 }',
            "sample 'x': context.name: is not of type",
        ),
        (
            HEAD + NAME + '[[samples]]\nname = "x"\ncontext = { name = "A", nam = 1 }',
            "warning: sample 'x': context.nam is not declared",
        ),
    ],
)
def test_check_finds_what_is_wrong_with_a_manifest(make_template: MakeTemplate, toml: str, expected: str) -> None:
    assert expected in "\n".join(_found(make_template(toml=toml)))


def test_check_finds_variables_through_includes_and_layouts(make_template: MakeTemplate) -> None:
    files = {
        "../_layout/base.txt": "{{ preheader }}{% block content %}{% endblock %}\n{{ footer }}",
        "row.txt": "{{ name }} {{ price }}",
    }
    body = "{% extends '_layout/base.txt' %}{% set preheader = 'x' %}"
    body += "{% block content %}{% include 'row.txt' %}{% endblock %}"
    found = _found(make_template(body=body, files=files))
    assert any(line.startswith("email/_layout/base.txt:2: error: footer is not declared") for line in found)
    assert any(line.startswith("email/hello/row.txt:1: error: price is not declared") for line in found)
    assert not any("preheader" in line for line in found)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("body.txt", "email/hello: error: body.txt is missing in the default locale"),
        ("subject.txt", "email/hello: error: subject.txt is missing in the default locale"),
        ("template.toml", "email/hello: error: template.toml is missing"),
    ],
)
def test_check_finds_missing_parts(make_template: MakeTemplate, missing: str, expected: str) -> None:
    root = make_template(files={"fr/body.txt": "{{ name }}", "fr/subject.txt": "x"})
    (root / "email/hello" / missing).unlink()
    assert expected in "\n".join(_found(root))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"fr/body.html": "<p>{{ name }}</p>"}, "email/hello: error: body.html is missing in the default locale"),
        ({"fr/body.txt": "{{ name }}"}, "hello/subject.txt: warning: fr has no subject.txt of its own"),
        ({"french/body.txt": "x"}, "email/hello/french: error: the folder is not a locale"),
        ({"fr_CA/body.txt": "x"}, "email/hello/fr_CA: error: spell the folder fr-CA"),
        ({"en/body.txt": "x"}, "email/hello/en: error: en is the default locale"),
        ({"bdoy.html": "x"}, "email/hello/bdoy.html: warning: nothing uses this file"),
        ({"fr/body.txt": "{{ nmae }}"}, "email/hello/fr/body.txt:1: error: nmae is not declared"),
        (
            {"fr/body.txt": "{{ name.first }}"},
            "sample 'plain' in fr: email/hello/fr/body.txt:1: 'str object' has no attribute",
        ),
    ],
)
def test_check_finds_what_is_wrong_with_a_locale(
    make_template: MakeTemplate, files: dict[str, str], expected: str
) -> None:
    assert expected in "\n".join(_found(make_template(files=files)))


def test_check_finds_phrases_that_were_not_translated(make_template: MakeTemplate) -> None:
    files = {
        "../_layout/phrases.txt": "bye",
        "../_layout/fr/phrases.txt": "au revoir",
        "de/subject.txt": "Hallo",
        "de/body.txt": "{{ name }} {% include '_layout/phrases.txt' %}",
    }
    (line,) = _found(make_template(body="{{ name }} {% include '_layout/phrases.txt' %}", files=files))
    assert line.startswith("email/_layout/phrases.txt: warning: de has no _layout/phrases.txt of its own")


def test_an_english_of_another_region_need_not_repeat_every_file(make_template: MakeTemplate) -> None:
    assert _found(make_template(files={"en-GB/subject.txt": "Hullo"})) == []


def test_check_finds_a_locale_that_no_sample_tries(make_template: MakeTemplate) -> None:
    toml = HEAD + NAME + SAMPLE.replace("context", 'locale = "en"\ncontext')
    found = _found(make_template(toml=toml, files={"fr/subject.txt": "x", "fr/body.txt": "{{ name }}"}))
    assert found == [
        "email/hello/template.toml: warning: no sample is rendered in fr: add one, or a sample without a locale"
    ]


def test_check_finds_an_sms_over_its_budget_and_names_the_dear_characters(make_template: MakeTemplate) -> None:
    toml = HEAD + "max_segments = 1\n" + NAME + SAMPLE
    body, french = "{{ name }}" + "a" * 150, "{{ name }} forêt août " + "a" * 60
    (line,) = _found(make_template("sms/hello", toml=toml, body=body, files={"fr/body.txt": french}))
    assert line == (
        "sms/hello/fr/body.txt: error: sample 'plain' takes 2 segments, and max_segments is 1: shorten the text, "
        "or do without ê û (not in the GSM alphabet, which fits 160 characters)"
    )


def test_check_finds_a_subject_in_an_sms(make_template: MakeTemplate) -> None:
    root = make_template("sms/hello", files={"subject.txt": "x"})
    assert _found(root) == ["sms/hello/subject.txt: error: an SMS has body.txt only: remove it"]


def test_check_finds_a_file_that_is_not_utf8(make_template: MakeTemplate) -> None:
    root = make_template()
    (root / "email/hello/body.txt").write_bytes("Grüße {{ name }}".encode("latin-1"))
    assert "email/hello/body.txt: error: byte 2 is not UTF-8: save the file as UTF-8" in _found(root)


def test_check_can_be_asked_for_one_name(make_template: MakeTemplate) -> None:
    make_template("email/other", body="{{ nmae }}")
    root = make_template("sms/hello", body="{{ nmae }}")
    assert {problem.path.split("/")[1] for problem in check_templates(root, name="hello")} == {"hello"}


def test_only_what_has_changed_is_checked_again(make_template: MakeTemplate) -> None:
    root = make_template("email/other", body="{{ nmae }}", files={"../_parts/name.txt": "{{ name }}"})
    make_template("sms/hello", body="{{ nmae }}")
    checks = TemplateChecks(root)
    first = {problem.path: problem for problem in checks.problems()}
    (root / "email/_parts/name.txt").write_text("{{ name }} {{ name }}")
    second = {problem.path: problem for problem in checks.problems()}
    assert second == first
    kept = [path for path in first if second[path] is first[path]]
    assert kept
    assert all(path.startswith("sms/") for path in kept)
    make_template("sms/hello")
    assert {problem.path.split("/")[0] for problem in checks.problems()} == {"email"}


def test_check_says_so_if_there_is_no_folder(tmp_path: Path) -> None:
    assert [problem.severity for problem in check_templates(tmp_path / "nowhere")] == [Severity.ERROR]


def test_a_problem_reads_as_compilers_write_them() -> None:
    assert str(TemplateProblem("email/a/body.txt", 3, "x", Severity.WARNING)) == "email/a/body.txt:3: warning: x"
    assert str(TemplateProblem("email/a", None, "x")) == "email/a: error: x"


def test_a_mail_that_is_not_transactional_names_the_kind_that_its_link_ends(make_template: MakeTemplate) -> None:
    link, head = "{{ name }} {{ unsubscribe_url }}", HEAD + "transactional = false\n"
    right = head + 'category = "digest"\n' + NAME + SAMPLE
    assert _found(make_template(body=link, toml=right)) == []
    assert "unsubscribe_url is not declared" in "\n".join(_found(make_template(body=link)))
    assert "transactional: false needs a category" in "\n".join(_found(make_template(toml=head + NAME + SAMPLE)))
    exempt = head + 'category = "digest"\nsuppression_exempt = true\n' + NAME + SAMPLE
    assert "transactional: false and suppression_exempt" in "\n".join(_found(make_template(toml=exempt)))
    sms = make_template("sms/hello", toml=right)
    assert "transactional: false is for e-mail only" in "\n".join(_found(sms))


def test_the_names_of_a_category_are_for_every_language_and_never_without_a_category(
    make_template: MakeTemplate,
) -> None:
    names, french = (
        '[category_names]\nen = "weekly digest"\n',
        {"fr/subject.txt": "x", "fr/body.txt": "{{ name }}"},
    )
    toml = HEAD + 'category = "digest"\n' + names + NAME + SAMPLE
    assert _found(make_template(toml=toml)) == []
    assert "warning: category_names has no fr" in "\n".join(_found(make_template(toml=toml, files=french)))
    assert "error: category_names" in "\n".join(_found(make_template(toml=HEAD + names + NAME + SAMPLE)))


def test_a_link_of_the_producer_s_own_goes_before_ours(make_template: MakeTemplate) -> None:
    toml = (
        HEAD + 'transactional = false\ncategory = "digest"\n[variables]\nunsubscribe_url = { type = "url" }\n'
        '[[samples]]\nname = "plain"\ncontext = { unsubscribe_url = "https://shop.example.com/stop" }\n'
    )
    root = make_template(body="{{ unsubscribe_url }}", toml=toml)
    assert _found(root) == []
    context = {"unsubscribe_url": "https://shop.example.com/stop"}
    rendered = Renderer(root).render(
        Channel.EMAIL, "hello", None, context, unsubscribe_url="https://x.example/u/1"
    )
    assert rendered.text == "https://shop.example.com/stop\n"
