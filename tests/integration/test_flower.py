"""`notifier flower` beside a real service: what it shows, and that nothing can be changed there."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from notifier.client.client import Client
from notifier.dev.machine import free_port
from tests.profiles import brokers
from tests.support.service import running_service
from tests.waiting import patient, wait_until

LOGIN = "operator:of this test"
RESET = {"reset_url": "https://shop.example.com/reset?token=x", "valid_minutes": 30}


def ask(url: str, *, method: str = "GET", login: str | None = LOGIN) -> tuple[int, str]:
    request = Request(url, method=method)
    if login is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urlopen(request, timeout=patient(10)) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


@pytest.mark.parametrize("broker_url", brokers(), indirect=True)
def test_it_shows_what_matters_and_nothing_can_be_changed(
    database_url: str, broker_url: str, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    settings = {
        "NOTIFIER_DATABASE_URL": database_url,
        "NOTIFIER_BROKER_URL": broker_url,
        "NOTIFIER_DATA_DIR": str(tmp_path),
        "FLOWER_BASIC_AUTH": LOGIN,
    }
    (elsewhere := tmp_path / "elsewhere").mkdir()
    # Of another Celery application; Flower would run it, and take its login.
    (elsewhere / "flowerconfig.py").write_text("basic_auth = ['somebody:else']")
    with (
        running_service(database_url, broker_url, tmp_path) as service,
        Client(broker_url, producer="shop") as client,
        (tmp_path / "flower.log").open("wb") as log,
    ):
        flower = subprocess.Popen(
            [sys.executable, "-m", "notifier", "flower", "--port", str(port)],
            env={**os.environ, **settings},
            cwd=elsewhere,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(lambda: ask(f"{url}/api/tasks")[0] == 200, timeout=60)
            for number in range(3):
                client.send("password_reset", f"user{number}@example.com", context=RESET)
            wait_until(lambda: service.count("sent") == 3, timeout=60)
            wait_until(lambda: "SUCCESS" in ask(f"{url}/api/tasks")[1], timeout=60)
            # Beat's ticks, one each second, are not among them.
            names = {task["name"] for task in json.loads(ask(f"{url}/api/tasks")[1]).values()}
            assert names == {"notifier.deliver"}
            assert [ask(f"{url}/{page}")[0] for page in ("workers", "tasks", "broker")] == [200, 200, 200]
            assert ask(f"{url}/workers", login=None)[0] == 401
            # Whoever shows none writes nothing into the log, either.
            asked = [
                ask(f"{url}/{page}", login="öperator:x")[0]
                for page in ("workers", "api/tasks", "static/../app.py")
            ]
            assert asked == [401, 401, 403]
            assert ask(f"{url}/api/task/revoke/x", method="POST")[0] == 403
        finally:
            flower.send_signal(signal.SIGTERM)
            code = flower.wait(patient(20))
    said = (tmp_path / "flower.log").read_text()
    assert code == 0, said
    assert "example.com" not in said
    assert "of this test" not in said
    assert "Inspect method" not in said
    assert "Traceback" not in said
    assert "app.py" not in said
