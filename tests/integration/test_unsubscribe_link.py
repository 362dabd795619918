"""The unsubscribe link from the mail to the record: its header, its page, one click, and what takes it back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from uuid import UUID

import pytest

from notifier.domain.message import new_id
from notifier.domain.statuses import Channel
from notifier.operations.api_keys import Scope
from notifier.store.suppressions import SuppressionView
from tests.support.api import Api, Reply
from tests.support.bounced import KEY
from tests.support.templates import write_template, write_templates

PUBLIC = "https://notify.example.com"
ONE_CLICK = b"List-Unsubscribe=One-Click"
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    api = Api(database_url, write_templates(tmp_path / "templates"), public_url=PUBLIC, hash_key=KEY)
    yield api
    api.close()


def link(api: Api, locale: str = "en", category: str = "digest") -> str:
    """The path of one."""
    url = api.services.tokens.unsubscribe_url(new_id(), Channel.EMAIL, "ann@example.com", category, locale)
    assert url.startswith(f"{PUBLIC}/u/")
    return url.removeprefix(PUBLIC)


def suppressed(api: Api) -> list[SuppressionView]:
    found = api.services.suppressions.find(Channel.EMAIL, "Ann@example.com")
    return [one for one in found if one.state == "active"]


class Page(HTMLParser):
    """What a page has: its tags, its words, and what it would load."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.language = ""
        self.loads: list[str] = []
        self.fields: dict[str, str] = {}
        self.feed(reply.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.loads += [value for name, value in given.items() if name in ("src", "href", "action", "onclick")]
        if tag == "html":
            self.language = given["lang"]
        if tag == "input":
            self.fields[given["name"]] = given["value"]

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())


def test_the_page_asks_and_changes_nothing(api: Api) -> None:
    path = link(api)
    for method in ("GET", "HEAD", "GET"):
        reply = api(method, path)
        assert reply.status == 200
    page = Page(reply)
    assert (page.language, page.tags.count("h1"), page.tags.count("button")) == ("en", 1, 1)
    assert page.fields == {"List-Unsubscribe": "One-Click"}
    assert page.loads == []
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert (reply.headers["referrer-policy"], reply.headers["cache-control"]) == ("no-referrer", "no-store")
    assert "light dark" in reply.body.decode()
    assert suppressed(api) == []


@pytest.mark.parametrize(
    ("locale", "language", "words"),
    [
        ("fr-CA", "fr", "Se désabonner"),
        ("zh-CN", "zh-Hans", "退订"),
        ("de", "en", "Unsubscribe"),
        ("", "en", "Unsubscribe"),
    ],
)
def test_it_speaks_the_language_of_the_mail(api: Api, locale: str, language: str, words: str) -> None:
    page = Page(api("GET", link(api, locale)))
    assert page.language == language
    assert page.words.count(words) == 3  # title, heading, button


@pytest.fixture
def named(database_url: str, tmp_path: Path) -> Iterator[Api]:
    """Two shops in one service, and a template that gives its category a name in two languages."""
    templates = write_templates(tmp_path / "templates")
    names = '[category_names]\nen = "weekly news"\nfr = "actualités <de la semaine>"'
    write_template(templates, "broken", 'category = "digest"\nnosuch = 1')
    write_template(templates, "news", f'category = "digest"\ntransactional = false\n{names}')
    senders = {
        "default": {"email": "Corner Shop <shop@example.com>"},
        "second": {"email": "Two & Co <b@example.com>"},
    }
    api = Api(
        database_url,
        templates,
        structure={"senders": senders, "default_sender": "default"},
        public_url=PUBLIC,
        hash_key=KEY,
    )
    yield api
    api.close()


@pytest.mark.parametrize(
    ("locale", "identity", "sender", "shown"),
    [
        ("en", "default", "Corner Shop", "“weekly news”"),
        ("fr-CA", "second", "Two & Co", "« actualités <de la semaine> »"),
        ("zh-CN", "removed since", "Corner Shop", "“digest”"),
        ("de", "", "Corner Shop", "“weekly news”"),
    ],
)
def test_it_names_the_sender_and_the_category(
    named: Api, locale: str, identity: str, sender: str, shown: str
) -> None:
    url = named.services.tokens.unsubscribe_url(
        new_id(), Channel.EMAIL, "ann@example.com", "digest", locale, identity
    )
    path = url.removeprefix(PUBLIC)
    for reply in (named("GET", path), named("POST", path, body=ONE_CLICK, headers=FORM)):
        words = Page(reply).words
        assert sender in words
        assert shown in " ".join(words)
    [found] = suppressed(named)
    assert found.scope == "category:digest"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (ONE_CLICK, FORM),
        (
            b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n',
            {"content-type": "multipart/form-data; boundary=b"},
        ),
        (
            b"--b\r\nContent-Disposition: form-data; name=List-Unsubscribe\r\n\r\nOne-Click\r\n\r\n--b--\r\n",
            {"content-type": 'Multipart/Form-Data; boundary="b"'},
        ),
        (ONE_CLICK + b"\r\n", FORM),
        (ONE_CLICK + b"&" + ONE_CLICK, FORM),
        (b"a=b&" + ONE_CLICK, {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}),
        (ONE_CLICK, {}),
    ],
)
def test_one_click_ends_the_category_once(api: Api, body: bytes, headers: dict[str, str]) -> None:
    path = link(api)
    for _ in range(2):
        assert api("POST", path, body=body, headers=headers).status == 200
    [found] = suppressed(api)
    assert (found.scope, found.reason, found.source) == ("category:digest", "unsubscribed", "unsubscribe")
    assert found.notification_id is not None


def test_it_can_be_taken_back_and_what_others_decided_stays(api: Api) -> None:
    path = link(api)
    undo = Page(api("POST", path, body=ONE_CLICK, headers=FORM)).fields
    assert undo == {"undo": "yes"}
    reply = api("POST", path, body=b"undo=yes", headers=FORM)
    assert (reply.status, suppressed(api)) == (200, [])
    assert "subscribed again" in reply.body.decode()
    [history] = api.services.suppressions.find(Channel.EMAIL, "ann@example.com")
    assert (history.state, history.lifted_by) == ("lifted", "unsubscribe")


def test_the_story_of_the_mail_tells_both(api: Api) -> None:
    body = {"channel": "email", "to": "ann@example.com", "template": "hello", "context": {"name": "Ann"}}
    body["idempotency_key"] = "k"
    reply = api("POST", "/v1/notifications", key=api.key(Scope.SEND), json_body=body)
    notification = UUID(reply.json["id"])
    url = api.services.tokens.unsubscribe_url(notification, Channel.EMAIL, "ann@example.com", "digest", "en")
    for words in (ONE_CLICK, ONE_CLICK, b"undo=yes", b"undo=yes"):
        api("POST", url.removeprefix(PUBLIC), body=words, headers=FORM)
    events = [one for one in api.services.audit.story(notification).events if one.kind == "recipient"]
    assert [event.detail for event in events] == [
        "they unsubscribed from digest by its link",
        "they subscribed to digest again by its link",
    ]
    assert {event.status for event in events} == {None}


def test_a_post_without_the_words_of_the_standard_does_nothing(api: Api) -> None:
    for body in (b"", b"x=y", b"List-Unsubscribe=No", b"\xff\xfe", b"&" * 5000, b"List-Unsubscribe"):
        assert api("POST", link(api), body=body, headers=FORM).status == 400
    json = {"content-type": "application/json"}
    for body in (b'{"List-Unsubscribe": "One-Click"}', ONE_CLICK):
        assert api("POST", link(api), body=body, headers=json).status == 400
    for body in (b"", b"--b", b"--b\r\n\r\nList-Unsubscribe=One-Click\r\n--b--", b"\xff" * 999, b"--b\r\n" * 2000):
        for kind in (
            "multipart/form-data; boundary=b",
            "multipart/form-data",
            "multipart/form-data; boundary=\xff",
        ):
            assert api("POST", link(api), body=body, headers={"content-type": kind}).status == 400
    for method in ("GET", "HEAD"):
        assert api(method, link(api), body=ONE_CLICK, headers=FORM).status == 200
    assert suppressed(api) == []


def test_a_link_that_we_did_not_make_gets_a_page_that_says_so(api: Api) -> None:
    path = link(api)
    for wrong in (path[:-9] + "AAAAAAAAA", path[:-5], "/u/x", "/u/%00", f"/u/{'A' * 5000}"):
        for method, body in (("GET", b""), ("POST", ONE_CLICK)):
            reply = api(method, wrong, body=body, headers=FORM)
            assert reply.status == 404
            assert Page(reply).fields == {}
    assert suppressed(api) == []


def test_a_category_is_only_words_in_the_page(api: Api) -> None:
    reply = api("GET", link(api, category="<script>alert(1)</script>"))
    assert "script" not in Page(reply).tags


def test_while_the_record_is_away_nothing_is_said_to_be_done(api: Api, tmp_path: Path) -> None:
    away = Api("postgresql://nobody@127.0.0.1:1/none", tmp_path, public_url=PUBLIC, hash_key=KEY)
    path = link(api)
    assert away("GET", path).status == 200
    assert away("POST", path, body=ONE_CLICK, headers=FORM).status == 503
    away.services.close()


def test_the_document_of_the_api_does_not_tell_of_it(api: Api) -> None:
    assert not [path for path in api.app.openapi()["paths"] if re.match("/u/", path)]
