"""The console's page of the daily work."""

from __future__ import annotations

from notifier.domain.errors import ServiceUnavailable
from notifier.operations.api_keys import Scope
from tests.support.api import Api
from tests.support.console import XSS, Browser, api, operator  # noqa: F401


def test_a_step_that_failed_is_asked_for_again(api: Api, operator: Browser) -> None:
    upkeep = api.services.upkeep
    while upkeep.run_late():
        pass
    assert b"The daily work is done" in operator.get("/schedules").body
    try:
        with upkeep.recorded("callbacks"):
            raise ServiceUnavailable(XSS)
    except ServiceUnavailable:
        page = operator.get("/schedules")
    assert b"1 step of the daily work is late" in page.body
    assert b"<script>alert" not in page.body
    done = operator.post("/schedules/callbacks/run", reason="the disk is mended")
    assert b"A worker runs callbacks within a minute" in done.body
    assert b"asked for" in operator.get("/schedules/now").body
    assert list(upkeep.run_late()) == ["callbacks"]
    assert b"The daily work is done" in operator.get("/schedules").body
    assert b"the disk is mended" in operator.get("/log", action="run_step").body
    assert operator.post(f"/schedules/{XSS[:3]}/run").status == 404


def test_a_producers_key_runs_no_step(api: Api) -> None:
    browser = Browser(api)
    browser.sign_in(api.key(Scope.READ, Scope.SEND))
    browser.get("/search")
    assert browser.get("/schedules").status == 403
    assert browser.post("/schedules/callbacks/run").status == 403
