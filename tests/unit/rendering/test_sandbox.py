"""What templates and values could try: values stay data, templates are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.errors import RenderingFailed, TemplateInvalid
from notifier.domain.statuses import Channel
from notifier.rendering import Renderer, limited_time
from notifier.rendering.sandbox import environment_of
from notifier.rendering.static_checks import examine

from .conftest import MakeTemplate

INJECTIONS = [
    "{{ 7*7 }}",
    "{{ config }}",
    "{{ self.__init__.__globals__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'] }}",
    "{% include 'template.toml' %}",
    "{# comment #}",
    "${7*7} #{7*7} <%= 7*7 %> {{{7*7}}}",
]

#: Each is refused when it is loaded, or fails when it runs; none gets at anything.
ATTACKS = [
    "{{ name.__class__ }}",
    "{{ name['__class__'] }}",
    "{{ name['__cla' ~ 'ss__'] }}",
    "{{ [name] | map(attribute='__class__') | list }}",
    "{{ name | attr('__class__') }}",
    "{{ name.upper() }}",
    "{{ name.format(name) }}",
    "{{ '{0.__class__}'.format(name) }}",
    "{{ '%s' % name }}",
    "{{ '%99999999d' % 1 }}",
    "{{ 'a' * 999999999 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ range(999999999) | list }}",
    "{{ lipsum() }}",
    "{{ dict(a=1) }}",
    "{{ cycler('a') }}",
    "{{ namespace(a=1) }}",
    "{{ joiner() }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set ignored = [].append(1) %}",
    "{{ {}.update(a=1) }}",
    "{% include name %}",
    "{% include '../../../etc/passwd' %}",
    "{% include '/etc/passwd' %}",
    "{% include 'body.txt' %}",
    "{% extends name %}",
    "{% import name as x %}",
    "{% autoescape false %}{{ name }}{% endautoescape %}",
    "{{ name | safe }}",
    "{{ name | center(999999999) }}",
    "{{ [1] | batch(999999999, 'x') | list }}",
    "{{ name() }}",
    "{{ undeclared }}",
    "{{ undeclared.x }}",
    "{{ none }}",
    "{{ [name] }}",
    "{{ name is string }}",
    "{{ self }}",
    "{{ [name] | map('attr', '__class__') | list }}",
    "{% for x in [1] recursive %}{{ loop(loop.__init__) }}{% endfor %}",
]


@pytest.mark.parametrize("value", INJECTIONS)
def test_a_value_that_looks_like_a_template_stays_what_it_is(make_template: MakeTemplate, value: str) -> None:
    root = make_template(body="{{ name }}", files={"subject.txt": "For {{ name }}"})
    rendered = Renderer(root).render(Channel.EMAIL, "hello", None, {"name": value})
    assert rendered.text == value + "\n"
    assert rendered.subject == "For " + value


@pytest.mark.parametrize("source", ATTACKS)
def test_a_template_that_reaches_out_is_refused(make_template: MakeTemplate, source: str) -> None:
    renderer = Renderer(make_template(body=source))
    with pytest.raises((TemplateInvalid, RenderingFailed)):
        renderer.render(Channel.EMAIL, "hello", None, {"name": "Ada"})


def test_an_error_names_file_and_line_and_repeats_no_value(make_template: MakeTemplate) -> None:
    renderer = Renderer(make_template(body="Dear\n{{ name | int + name }}"))
    with pytest.raises(RenderingFailed) as caught:
        renderer.render(Channel.EMAIL, "hello", None, {"name": "hunter2"})
    assert str(caught.value).startswith("email/hello/body.txt:2: ")
    assert "hunter2" not in str(caught.value)


def test_a_dot_reads_the_key_even_where_dict_has_a_method(make_template: MakeTemplate) -> None:
    root = make_template(body="{{ name.items }} {{ name.keys | length }}")
    rendered = Renderer(root).render(Channel.EMAIL, "hello", None, {"name": {"items": "two", "keys": [1, 2]}})
    assert rendered.text == "two 2\n"


def test_html_escapes_values_and_text_does_not(make_template: MakeTemplate) -> None:
    root = make_template(html="<p title='{{ name }}'>{{ name }}</p>")
    rendered = Renderer(root).render(Channel.EMAIL, "hello", None, {"name": "<b>'\"&"})
    assert rendered.html == "<p title='&lt;b&gt;&#39;&#34;&amp;'>&lt;b&gt;&#39;&#34;&amp;</p>"
    assert rendered.text == "Hello <b>'\"&\n"


@pytest.mark.parametrize(
    "source", ["{% set a = name %}{{ a }}", "{{ name | join }}", "{{ name | upper | lower }}"]
)
@given(value=st.text(st.sampled_from("<>&\"'a"), max_size=20))
def test_no_way_through_a_template_switches_escaping_off(source: str, value: str) -> None:
    code = examine("body.html", "body.html", source).code
    assert code is not None
    found = environment_of({"body.html": code}).get_template("body.html").render(name=value)
    assert not set("<>\"'") & set(found)


def test_a_text_without_end_is_stopped(make_template: MakeTemplate) -> None:
    renderer = Renderer(
        make_template(body="{% for a in name %}{% for b in name %}{{ b }}{% endfor %}{% endfor %}")
    )
    names: dict[str, Any] = {"name": ["x" * 1000] * 1000}
    with pytest.raises(RenderingFailed, match="longer than"):
        renderer.render(Channel.EMAIL, "hello", None, names)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in name %}" * 7 + "{% set x = a %}" + "{% endfor %}" * 7,
        "{% macro m() %}" + "{% for a in name %}" * 7 + "{% endfor %}" * 7 + "{% endmacro %}{{ m() }}",
        "{% for a in name recursive %}{% if loop.depth < 8 %}{{ loop(name) }}{% endif %}{% endfor %}",
        "{% macro a0() %}{% endmacro %}"
        + "".join(f"{{% macro a{n} () %}}{{{{ a{n - 1}() ~ a{n - 1}() }}}}{{% endmacro %}}" for n in range(1, 30))
        + "{{ a29() }}",
        "{% for a in name %}{% for b in name %}{% set x = name|map('length')|sum %}{% endfor %}{% endfor %}" * 20,
        "{% for a in name %}{% for b in name %}{% set x = [name, name] %}{% endfor %}{% endfor %}" * 20,
        "{% set a = 'a'|replace('a', '"
        + "b" * 100_000
        + "') %}{% for b in name %}{% set x = a|wordcount %}{% endfor %}" * 20,
    ],
    ids=["loops", "in a macro", "recursive", "macros", "filters", "lists", "texts"],
)
def test_a_template_that_computes_without_end_is_stopped(make_template: MakeTemplate, source: str) -> None:
    renderer = Renderer(make_template(body=source))
    with limited_time(0.05), pytest.raises(RenderingFailed, match=r"computes for more than 0\.05 seconds"):
        renderer.render(Channel.EMAIL, "hello", None, {"name": ["x"] * 30})


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    """A template that does to its variable whatever templates do, and declares nothing."""
    root = tmp_path_factory.mktemp("templates")
    folder = root / "sms" / "careless"
    folder.mkdir(parents=True)
    folder.joinpath("template.toml").write_text('description = "Careless."', "utf-8")
    source = (
        "{{ x.a | money }}{{ x[0] | date }}{{ x | sum }}{{ x | sort | first }}{% for y in x %}{{ y }}{% endfor %}"
    )
    folder.joinpath("body.txt").write_text(source, "utf-8")
    return Renderer(root)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_whatever_the_value_only_our_own_errors_come_out(careless: Renderer, value: Any) -> None:
    with pytest.raises(RenderingFailed):
        careless.render(Channel.SMS, "careless", None, {"x": value})


def test_variables_and_names_set_by_the_template_are_told_apart() -> None:
    file = examine("b.txt", "b.txt", "{% set a = 1 %}\n{% block c %}{{ a }}\n{{ b }}{{ locale }}{% endblock %}")
    assert dict(file.variables) == {"a": 2, "b": 3}
    assert file.assigned == {"a"}


def test_only_a_variable_of_type_html_is_written_as_it_is(make_template: MakeTemplate) -> None:
    toml = """description = "A greeting."
[variables]
name = { type = "string" }
card = { type = "html", required = false }
[[samples]]
name = "plain"
context = { name = "Ada" }
"""
    body = "{% if card %}<p>{{ card }}{{ name }}</p>{% endif %}"
    renderer = Renderer(make_template(toml=toml, html=body))
    context = {"name": "<i>Ada</i>", "card": "<b>{{ 7*7 }}</b>"}
    html = renderer.render(Channel.EMAIL, "hello", None, context).html
    assert html == "<p><b>{{ 7*7 }}</b>&lt;i&gt;Ada&lt;/i&gt;</p>"
    # A part that comes out empty is no part.
    assert renderer.render(Channel.EMAIL, "hello", None, {"name": "Ada"}).html is None


def test_html_inside_of_a_list_is_refused(make_template: MakeTemplate) -> None:
    toml = 'description = "A greeting."\n[variables]\nname = { type = "list", of = { type = "html" } }\n'
    with pytest.raises(TemplateInvalid, match="variable of its own"):
        Renderer(make_template(toml=toml, body="Hello")).template(Channel.EMAIL, "hello")
