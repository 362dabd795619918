"""Twilio's signatures, made by Twilio's own library for another language: only what it signs is let in.

`golden/twilio_signatures.v1.json` holds them, `golden/twilio_signatures.js` makes them. The token is nobody's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from notifier.providers.twilio.webhooks import Form, is_signed, read_form
from tests.waiting import patient

GOLDEN = Path(__file__).parent / "golden"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "twilio_signatures.v1.json").read_text("utf-8"))
#: Where the npm package is kept between runs.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "notifier-tests" / "npm"


def form_of(case: dict[str, Any]) -> Form:
    """As it comes over the wire."""
    form = read_form(urlencode(case["form"], doseq=True).encode())
    assert form is not None
    return form


def is_let_in(case: dict[str, Any], **changed: Any) -> bool:
    given = {"token": case["token"], "url": case["url"], "form": form_of(case), "signature": case["signature"]}
    given |= changed
    return is_signed(given["token"], given["url"], given["form"], given["signature"])


@pytest.fixture(params=CASES, ids=lambda case: case["name"])
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def test_what_twilios_library_signs_is_let_in(case: dict[str, Any]) -> None:
    assert is_let_in(case)


def test_the_order_of_the_fields_is_no_part_of_it(case: dict[str, Any]) -> None:
    form = form_of(case)
    assert is_let_in(case, form=Form(reversed(list(form.items()))))


def test_another_token_or_address_is_refused(case: dict[str, Any]) -> None:
    assert not is_let_in(case, token=case["token"][::-1])
    for url in (
        case["url"] + "/",
        case["url"] + "?x=1",
        case["url"].replace("/webhooks", "//webhooks"),
        case["url"].replace("notify.", "other."),
        case["url"][:-1],
    ):
        assert not is_let_in(case, url=url), url


def test_a_field_that_is_changed_added_or_left_out_is_refused(case: dict[str, Any]) -> None:
    form = form_of(case)
    for name in set(form):
        changed = Form(form)
        changed[name] = form[name] + "0"
        assert not is_let_in(case, form=changed), name
        without = Form(form)
        del without[name]
        # A field without a value leaves its name in what is signed.
        assert not is_let_in(case, form=without), name
    assert not is_let_in(case, form=Form([*form.items(), ("Extra", "")]))
    # The values of two fields exchanged.
    first, second = "From", "To"
    exchanged = Form(form)
    exchanged[first], exchanged[second] = form[second], form[first]
    assert not is_let_in(case, form=exchanged)


@pytest.mark.parametrize("signature", ["", "x", "=" * 28, "ü" * 28, "A" * 10_000])
def test_what_is_no_signature_is_refused(signature: str) -> None:
    assert not is_let_in(CASES[0], signature=signature)


def test_a_public_url_that_is_none_refuses_and_does_not_fail() -> None:
    assert not is_let_in(CASES[0], url=CASES[0]["url"].replace("example.com", "example.com:99999"))


def test_a_signature_with_one_bit_changed_is_refused(case: dict[str, Any]) -> None:
    signature: str = case["signature"]
    for place in range(len(signature) - 1):
        other = "A" if signature[place] != "A" else "B"
        assert not is_let_in(case, signature=signature[:place] + other + signature[place + 1 :])


def test_the_fixtures_are_what_twilios_library_makes_today() -> None:
    """With `NOTIFIER_TEST_NPM=1` the package is installed where it is missing, outside of the tree."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node:
        pytest.skip("Node is not installed")
    if not (CACHE / "node_modules" / "twilio").is_dir():
        if not npm or not os.environ.get("NOTIFIER_TEST_NPM"):
            pytest.skip(f"the npm package twilio is not in {CACHE}; NOTIFIER_TEST_NPM=1 installs it there")
        CACHE.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--no-audit", "--no-fund", "--silent", "twilio@5"]
        subprocess.run(install, cwd=CACHE, check=True, timeout=patient(100))
    made = subprocess.run(
        [node, GOLDEN / "twilio_signatures.js", CACHE],
        input=json.dumps(CASES),
        capture_output=True,
        text=True,
        check=True,
        timeout=patient(60),
    )
    assert json.loads(made.stdout) == [case["signature"] for case in CASES]
