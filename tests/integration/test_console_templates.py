"""The pages of templates: what is wrong with them, and what they make of a context that somebody types."""

from __future__ import annotations

import json
from pathlib import Path

from notifier.operations.api_keys import Scope
from tests.support.api import Api
from tests.support.console import XSS, Browser, api, operator  # noqa: F401 - fixtures
from tests.support.templates import write_template

HELLO = "/templates/email/hello"


def test_the_list_shows_every_template_and_what_is_wrong(operator: Browser, tmp_path: Path) -> None:
    write_template(tmp_path, "broken", "variables = 3")
    write_template(tmp_path, "bare", "")
    page = operator.get("/templates").body.decode()
    assert "2 errors would make messages fail" in page
    assert [f"{name}</a>" in page for name in ("hello", "code", "broken", "bare")] == [True] * 4
    assert "broken</span>" in page
    one = operator.get("/templates/email/bare").body.decode()
    assert "there are no [[samples]]" in one
    broken = operator.get("/templates/email/broken").body.decode()
    assert "This template is broken" in broken
    assert "variables:" in broken
    assert operator.get("/templates/email/absent").status == 404


def test_a_context_that_is_typed_is_rendered_in_every_language(operator: Browser) -> None:
    page = operator.get(HELLO).body.decode()
    assert "Hello Ann" in page
    assert [f"mail-{theme}-{width}" in page for theme in ("light", "dark") for width in (600, 360)] == [True] * 4
    typed = operator.post(f"{HELLO}/preview", context=json.dumps({"name": XSS}), locale="en")
    assert b"Hello &#34;&#39;&gt;&lt;script&gt;" in typed.body
    assert b"<script>alert" not in typed.body
    frame = operator.post(f"{HELLO}/html", context='{"name": "Bob"}', locale="en", theme="dark")
    assert b"<p>Hello <b>Bob</b></p>" in frame.body
    assert frame.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    sms = operator.post("/templates/sms/code/preview", context='{"code": "042137"}')
    assert b"1 segment, GSM-7, 20 units, 140 left in the last one." in sms.body


def test_what_is_wrong_with_a_context_names_the_variable_and_the_fix(operator: Browser) -> None:
    for typed, expected in (
        ("{}", "<code>context.name</code> is missing. Send a string."),
        ('{"name": 3}', "<code>context.name</code> is not of type string. Send a string."),
        ('{"name" 3}', "<code>context</code> is not JSON: expected `:` at line 1 column 9. Correct it there."),
        ("[" * 5000, "<code>context</code> is not JSON"),
        ("[]", "<code>context</code> is not an object."),
    ):
        assert expected in operator.post(f"{HELLO}/preview", context=typed).body.decode()


def test_a_template_in_a_theme_shows_what_its_reader_would_see(operator: Browser, tmp_path: Path) -> None:
    write_template(tmp_path, "dark", "")
    (tmp_path / "email" / "dark" / "body.html").write_text("<style>@media (prefers-color-scheme: dark) {}</style>")
    frames = [
        operator.post("/templates/email/dark/html", context="{}", locale="en", theme=theme).body
        for theme in ("light", "dark")
    ]
    assert frames == [b"<style>@media (max-width: 0) {}</style>", b"<style>@media (min-width: 0) {}</style>"]


def test_a_producers_key_sees_the_templates_it_may_use(api: Api) -> None:
    browser = Browser(api)
    browser.sign_in(api.key(Scope.READ, Scope.SEND, templates=("hello",)))
    page = browser.get("/templates").body.decode()
    assert ("hello</a>" in page, "code</a>" in page) == (True, False)
    assert browser.get("/templates/sms/code").status == 403
    assert browser.post("/templates/sms/code/preview", context='{"code": "1"}').status == 403
    assert browser.get("/templates/sms/absent").status == 403
    browser.form_token = "0"
    assert browser.post(f"{HELLO}/preview", context='{"name": "Ann"}').status == 403


def test_a_template_that_writes_its_producers_html_is_seen_by_who_may_send_it(
    api: Api, operator: Browser, tmp_path: Path
) -> None:
    write_template(tmp_path, "raw", '[variables.html]\ntype = "html"\nrequired = false')
    own = Browser(api)
    own.sign_in(api.key(Scope.READ))
    pages = [browser.get("/templates").body for browser in (own, operator)]
    assert [(b"hello</a>" in page, b"raw</a>" in page) for page in pages] == [(True, False), (True, True)]
    statuses = [browser.get("/templates/email/raw").status for browser in (own, operator)]
    assert statuses == [403, 200]
    assert own.post("/templates/email/raw/preview", context="{}").status == 403


def test_a_template_that_does_not_compile_hides_no_other(operator: Browser, api: Api, tmp_path: Path) -> None:
    write_template(tmp_path, "deep", "")
    nested = "{% if locale %}" * 120 + "a" + "{% endif %}" * 120
    (tmp_path / "email" / "deep" / "body.txt").write_text(nested)
    listed = api("GET", "/v1/templates", key=api.key(Scope.SEND))
    assert {one["name"]: one["is_broken"] for one in listed.json} == {"deep": True, "hello": False, "code": False}
    assert b"nested too deeply: split it into files" in operator.get("/templates/email/deep").body
    body = {"channel": "email", "to": "ann@example.com", "template": "deep", "idempotency_key": "one"}
    refused = api("POST", "/v1/notifications", key=api.key(Scope.SEND), json_body=body)
    assert (refused.status, b"the template is broken" in refused.body) == (422, True)
