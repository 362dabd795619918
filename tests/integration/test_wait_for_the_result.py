"""The programs of docs/how-to/wait-for-the-result.md, as they are written there, on a service that sends."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from notifier.api.timeouts import ClientTimeouts
from notifier.client.notifier_result import STATES
from notifier.client.service_api import default_api
from notifier.domain.statuses import Status
from notifier.intake.redis import RedisReader
from notifier.operations.api_keys import Scope
from notifier.store.engine import transaction
from tests.support.api import Api, call, served

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "wait-for-the-result.md").read_text("utf-8")
THREAD, ASYNCIO, FASTAPI, CELERY = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def _service(database_url: str, redis_broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An intake and an API, and somebody who sends all that is queued. Clients find them in the environment."""
    api = Api(database_url, ROOT / "templates")
    stop = threading.Event()

    def send_all() -> None:
        while not stop.wait(0.02):
            with transaction(api.services.engine) as connection:
                connection.execute(
                    text("UPDATE states SET status = 'sent', due_at = NULL WHERE status = 'queued'")
                )

    threads = [
        threading.Thread(target=RedisReader(redis_broker_url).run, args=(api.parts.intake.process, stop)),
        threading.Thread(target=send_all),
    ]
    with served(api.app, ClientTimeouts()) as port:
        monkeypatch.setenv("NOTIFIER_BROKER_URL", redis_broker_url)
        monkeypatch.setenv("NOTIFIER_API_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NOTIFIER_API_KEY", api.key(Scope.SEND, Scope.READ))
        for thread in threads:
            thread.start()
        yield
        stop.set()
        for thread in threads:
            thread.join()
    default_api.close()
    api.close()


@pytest.mark.usefixtures("_service")
def test_the_programs_of_the_page_do_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(THREAD, "in_a_thread", "exec"), {})
    assert "sent True None" in capsys.readouterr().out
    exec(compile(ASYNCIO, "on_asyncio", "exec"), {})
    assert re.findall(r" (\w+)$", capsys.readouterr().out, re.MULTILINE) == ["sent"] * 3
    exec(compile(CELERY, "words_of_celery", "exec"), {})
    assert capsys.readouterr().out.endswith("SUCCESS True True False\n")
    shop: dict[str, Any] = {}
    exec(compile(FASTAPI, "in_fastapi", "exec"), shop)
    with served(shop["app"], ClientTimeouts()) as port:
        url = f"http://127.0.0.1:{port}"
        path = call("POST", f"{url}/logins?number=%2B15550100123").json["code_sent"]
        refused = call("POST", f"{url}/logins?number=+15550100123")
        assert (refused.status, refused.json["detail"][0]["field"]) == (422, "to")
        found = call("GET", url + path).json
        assert found.keys() == {"ready", "successful"}
        assert call("GET", f"{url}/logins/01a2047b-fb2a-7da5-858e-3be3814fe3b1").status == 404


def test_every_status_has_its_word_of_celery_on_the_page() -> None:
    assert STATES.keys() == {None, *Status}
    rows = dict(re.findall(r"^\| `([A-Z]+)` \| (.*) \|$", PAGE, re.MULTILINE))
    shown = {word: set(re.findall(r"`(\w+)`", statuses)) for word, statuses in rows.items()}
    assert shown == {word: {s.value for s in Status if STATES[s] == word} for word in set(STATES.values())}
