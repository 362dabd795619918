"""What a template may make: stopped before it fills the memory or takes minutes; and loading evaluates nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from notifier.domain.errors import RenderingFailed
from notifier.domain.statuses import Channel
from notifier.rendering import Renderer, check_templates, limited_time

from .conftest import MakeTemplate

MUCH = "it makes more than 16,000,000 characters of text on its way: repeat, replace or join less"
TEN = "aaaaaaaaaa"

#: Each doubles, or more, what it has, until there are gigabytes; or takes as many steps.
TOO_MUCH = {
    "replace": "{{ name" + f"|replace('a', '{TEN}')" * 9 + " }}",
    "replace in a constant": "{{ 'a'" + f"|replace('a', '{TEN}')" * 9 + " }}",
    "filter blocks": f"{{% filter replace('a', '{TEN}') %}}" * 9 + "a" + "{% endfilter %}" * 9,
    "tilde": "{% set a = name %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "plus": "{% set a = name %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
    "lists": "{% set a = [name] %}" + "{% set a = a + a %}" * 40 + "{{ a | length }}",
    "join": "{% set a = name %}" + "{% set a = [a, a, a, a] | join(a) %}" * 20 + "{{ a }}",
    "lists in lists as text": "{% set a = [name] %}" + "{% set a = [a, a] %}" * 40 + "{{ a | string }}",
    "lists in lists compared": "{% set a = [name] %}{% set b = [name] %}"
    + "{% set a = [a, a] %}{% set b = [b, b] %}" * 40
    + "{{ 'y' if a == b else 'n' }}",
    "objects": "{% set a = {'b': name} %}" + "{% set a = {'b': a, 'c': a} %}" * 40 + "{{ a | string }}",
    "mapped lists": "{% set a = [name] %}"
    + "{% set a = [1, 2, 3, 4] | map(attribute='b', default=a) | list %}" * 30
    + "{{ a | string }}",
    "macros": "{% macro m(a) %}{{ a }}{{ a }}{% endmacro %}{% set a = name %}"
    + "{% set a = m(a) %}" * 40
    + "{{ a }}",
    "a macro in itself": "{% macro m(a) %}{{ m(a ~ a) }}{% endmacro %}{{ m(name) }}",
    "set blocks": "{% set a = name %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40 + "{{ a }}",
    "blocks": f"{{% block a0 %}}{'a' * 9000}{{% endblock %}}"
    + "".join(
        f"{{% block a{n} %}}{{{{ self.a{n - 1}() }}}}{{{{ self.a{n - 1}() }}}}{{% endblock %}}"
        for n in range(1, 40)
    ),
    "slices": f"{{% set a = name | replace('a', '{'b' * 50_000}') %}}{{% set b = [{'a[1:],' * 500}] %}}y",
    "characters of a text": f"{{% set a = '{'b' * 300_000}' %}}{{{{ (a ~ a) | list | length }}}}",
    "wrapped": f"{{{{ 'aaaa' | replace('a', '{'a ' * 20_000}') | wordwrap(1, wrapstring='{'b' * 1000}') }}}}",
}
#: (template, the end of the error)
REFUSED = [
    ("{{ 10 | round(100000000, 'floor') }}", "a number has at most 300 digits: round to fewer"),
    ("{{ [[1], [2]] | sum(start=[]) }}", "sum is for numbers; join texts, and loop over lists"),
    (f"{{{{ name | trim('{'b' * 101}') }}}}", "trim looks for at most 100 characters: name fewer"),
    (
        f"{{{{ 'a' | replace('a', '{'b' * 260_000}') | wordwrap(1) }}}}",
        "wordwrap takes at most 250,000 characters: send less data",
    ),
    (
        "{% import 'b.txt' as b %}{{ b ~ '' }}",
        "a file that is imported is no text: call its macros, or include it",
    ),
]
_MEASURED = """
import resource, sys
from pathlib import Path
from notifier.rendering import check_templates

resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len([problem for problem in check_templates(Path(sys.argv[1])) if "characters of text" in problem.text]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("source", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_grows_without_end_is_stopped(make_template: MakeTemplate, source: str) -> None:
    renderer = Renderer(make_template(body=source))
    with pytest.raises(RenderingFailed, match=f"^email/hello/body.txt:1: {MUCH}"):
        renderer.render(Channel.EMAIL, "hello", None, {"name": "aaaaa"})


def test_the_memory_stays_small_when_templates_are_checked(make_template: MakeTemplate, tmp_path: Path) -> None:
    for number, source in enumerate(TOO_MUCH.values()):
        make_template(f"email/hostile{number}", body=source)
    command = [sys.executable, "-c", _MEASURED, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found[0] == str(len(TOO_MUCH))
    # In MB, with the compiled templates. 16 million characters of a text take 16 to 64.
    assert int(found[1]) < 150


@pytest.mark.parametrize(("source", "problem"), REFUSED)
def test_what_would_take_minutes_is_refused(make_template: MakeTemplate, source: str, problem: str) -> None:
    root = make_template(body=source, files={"b.txt": "text"})
    with pytest.raises(RenderingFailed) as caught:
        Renderer(root).render(Channel.EMAIL, "hello", None, {"name": "Ada"})
    assert str(caught.value) == f"email/hello/body.txt:1: {problem}"
    assert problem in "\n".join(str(one) for one in check_templates(root))


def test_nothing_is_evaluated_when_a_template_is_loaded(make_template: MakeTemplate) -> None:
    hostile = "{{ 'a'" + f"|replace('a', '{TEN}')" * 6 + " }}{{ 10 | round(100000000, 'floor') }}"
    root = make_template(body=f"{{% if name == 'Eve' %}}{hostile}{{% endif %}}Hello")
    assert Renderer(root).render(Channel.EMAIL, "hello", None, {"name": "Ada"}).text == "Hello\n"


def test_each_rendering_may_make_as_much(make_template: MakeTemplate) -> None:
    renderer = Renderer(make_template(body="{% set a = name %}" + "{% set a = a ~ a %}" * 15 + "{{ name }}"))
    with limited_time(60):  # as previews in every language are
        for _ in range(20):
            renderer.render(Channel.EMAIL, "hello", None, {"name": "a" * 20})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ [1, [2, name]] | join('-') }}", "1-[2, 'a<b']"),
        ("{{ 'a' ~ 1 ~ name ~ [name] }}", "a1a<b['a<b']"),
        ("{{ ([1] + [2]) | join + name[1:] }}", "12<b"),
        ("{{ 2 + 3 }} {{ 2.5 | round }} {{ '7' | int + 1 }} {{ 'x' | int(4) }}", "5 2.0 8 4"),
        ("{{ name | replace('<', '&') | upper }}", "A&B"),
        (
            "{{ [{'n': 1}, {'n': 2}] | sum(attribute='n') }} {{ 'c b' | wordwrap(1) | replace('\\n', '/') }}",
            "3 c/b",
        ),
        ("{% for k, v in {'b': 2, 'a': name} | dictsort %}{{ k }}={{ v }};{% endfor %}", "a=a<b;b=2;"),
        ("{% filter upper %}{{ name }}{% endfilter %}{{ ' x ' | trim }}", "A<Bx"),
    ],
)
def test_what_is_counted_makes_what_jinja_makes(make_template: MakeTemplate, source: str, text: str) -> None:
    root = make_template(body=source, html=f"<p>{source}</p>")
    rendered = Renderer(root).render(Channel.EMAIL, "hello", None, {"name": "a<b"})
    assert rendered.text.strip() == text
    assert rendered.html is not None
    assert "<b" not in rendered.html.lower()
