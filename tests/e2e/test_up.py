"""`notifier up` as a producer meets it: what the READMEs show is run as written against it."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Iterable, Iterator
from email import message_from_bytes
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request

import pytest

from notifier import Client
from notifier.dev.embedded.binaries import find_rabbitmq
from notifier.dev.machine import free_port, make_temporary_folder
from tests.profiles import is_full
from tests.support.up import ROOT, Up, block, processes_of
from tests.waiting import wait_until

README = ROOT / "README.md"
SHOP = ROOT / "examples" / "django_shop"
#: What the API does when it starts, not when it is imported.
ADD_ROUTES = "_add_routes(app, services)\n"
#: What the document of the API says of a route.
RIGHT = "The process is alive"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the embedded Postgres may use even if we are root."""
    made = make_temporary_folder()
    yield made
    shutil.rmtree(made)


# Two starts, one restart or four, and all that the READMEs show.
@pytest.mark.timeout(240)
def test_what_the_readmes_show_runs_and_is_kept_and_a_change_restarts_the_programs(folder: Path) -> None:
    with Up(folder) as up:
        python = f"python - <<'END'\n{block(README, 'import Client')}\nEND"
        assert up.shell(python).strip() in ("sent", "delivered")
        assert json.loads(up.shell(block(README, "curl")))["id"]
        assert "login_code" in up.shell(block(README, "notifier send"))
        # The local Twilio reports to the API.
        wait_until(lambda: statuses(up) == ["delivered"] * 3, timeout=30)
        ship_an_order(up, folder)
        # A machine that is too busy to answer one check in time answers it a moment later.
        wait_until(lambda: faults_of(up) == [], timeout=60)
        sign_in(up)
        key = up.variables["NOTIFIER_API_KEY"]
        assert "Warning" not in up.output
    # Ctrl-C has ended all of it.
    assert processes_of(folder) == []
    tree = copied_tree(folder / "tree")
    # Every session of the tests starts such a node; here it takes ten seconds more.
    broker = ["--broker", "rabbitmq"] if is_full() and find_rabbitmq() else []
    with Up(folder, "--reload", *broker, program=tree) as up:
        assert statuses(up) == ["delivered"] * 3
        assert up.variables["NOTIFIER_API_KEY"] == key
        changes_restart_the_programs_and_lose_nothing(up, folder, tree / "notifier" / "api")
    assert processes_of(folder) == []


def changes_restart_the_programs_and_lose_nothing(up: Up, folder: Path, api: Path) -> None:
    """In the full profile also one that cannot be imported, and one with which a program does not start. What is
    wrong next is saved before what is put right: they may be noticed together, or one after the other."""
    url = up.variables["NOTIFIER_API_URL"]
    # One of the first that are imported.
    early, program, page = api / "__init__.py", api / "app.py", api / "routes" / "health.py"
    was = {path: path.read_text() for path in (early, program, page)}
    with Client(up.variables["NOTIFIER_BROKER_URL"], producer="shop") as client:
        publish(client, range(100))
        if is_full():
            early.write_text("(\n")
            wait_until(lambda: "the programs go on as they were" in up.output, timeout=60)
            assert RIGHT in read(f"{url}/openapi.json")
            publish(client, range(100, 200))
            broken = was[program].replace(ADD_ROUTES, f'raise LookupError("of it")\n    {ADD_ROUTES}', 1)
            program.write_text(broken)
            early.write_text(was[early])
            wait_until(lambda: "they start again at the next save" in up.output, timeout=60)
            said = up.output.partition("the changed code does not start: api ended.")[2]
            assert "LookupError: of it" in said.partition("they start again")[0]
            assert "restarted: " not in up.output
        publish(client, range(200, 300))
    page.write_text(was[page].replace(RIGHT, "Changed"))
    program.write_text(was[program])
    wait_until(lambda: "restarted: " in up.output, timeout=60)
    assert "health.py" in up.output
    wait_until(lambda: answers(url), timeout=30)
    assert "Changed" in read(f"{url}/openapi.json")
    published = (*range(100), *(range(100, 200) if is_full() else ()), *range(200, 300))
    expected = sorted(f"{number}@example.com" for number in published)
    wait_until(lambda: len(receivers(folder)) >= len(expected), timeout=60)
    assert sorted(receivers(folder)) == expected


def copied_tree(to: Path) -> Path:
    """What runs of this checkout, to be changed."""
    for name in ("notifier", "templates", "migrations"):
        # With its byte code, so that only what is changed is compiled.
        shutil.copytree(ROOT / name, to / name)
    shutil.copy(ROOT / "notifier.toml", to)
    return to


def publish(client: Client, numbers: Iterable[int]) -> None:
    context = {"reset_url": "https://shop.example.com/reset", "valid_minutes": 30}
    for number in numbers:
        client.send("password_reset", to=f"{number}@example.com", context=context, idempotency_key=str(number))


def receivers(folder: Path) -> list[str]:
    """Of each mail about a password that arrived."""
    mails = [message_from_bytes(path.read_bytes()) for path in (folder / "mail").glob("*.eml")]
    return [str(mail["To"]) for mail in mails if re.fullmatch(r"\d+@example\.com", str(mail["To"]))]


def read(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        return str(answer.read().decode())


def statuses(up: Up) -> list[str]:
    """As the API has them; the command line would load everything anew each time."""
    url, key = (up.variables[f"NOTIFIER_API_{name}"] for name in ("URL", "KEY"))
    request = Request(f"{url}/v1/notifications?channel=sms", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request) as answer:
        return [row["status"] for row in json.load(answer)["items"]]


def faults_of(up: Up) -> list[str]:
    """What the doctor finds wrong."""
    found = json.loads(up.shell("notifier doctor --json || true"))
    return [check["name"] for check in found if check["ok"] is False]


def ship_an_order(up: Up, folder: Path) -> None:
    """As the README of the Django example says, on a port and a database of ours; its mail arrives."""
    page, port = SHOP / "README.md", free_port()
    with_own_database = f"export SHOP_SQLITE={folder / 'shop.sqlite3'}\n"
    migrate = next(line for line in block(page, "pip install").splitlines() if "migrate" in line)
    up.shell(with_own_database + migrate, cwd=SHOP)
    with (
        up.terminal(with_own_database + block(page, "notifier_relay"), cwd=SHOP),
        up.terminal(f"{with_own_database}{block(page, 'runserver').strip()} {port}", cwd=SHOP),
    ):
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), timeout=30)
        urllib.request.urlopen(f"http://127.0.0.1:{port}/static/admin/css/base.css").close()
        ship = block(page, "curl").replace("curl ", "curl -fsS ").replace(":8000", f":{port}")
        up.shell(with_own_database + ship, cwd=SHOP)
        wait_until(lambda: list((folder / "mail").glob("*.eml")), timeout=30)


def answers(url: str) -> bool:
    """Whether something speaks HTTP there."""
    try:
        urllib.request.urlopen(url)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def sign_in(up: Up) -> None:
    """Open the console in the way that `up` names."""
    url, key = (up.variables[f"NOTIFIER_API_{name}"] for name in ("URL", "KEY"))
    assert f"{url}/  (sign in with the key below)" in up.output
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(f"{url}/sign-in", urlencode({"key": key}).encode()) as page:
        assert "Waiting by lane" in page.read().decode()
