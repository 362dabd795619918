"""`make examples`: every example of a producer's stack, as its README has it, against one service on RabbitMQ. Its
mail server takes ten seconds for each mail.

Not part of `make test`. An example whose tools are not installed is skipped, and says what it needs.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import jsonschema
import pytest

from notifier.client.addresses import ApiSearch
from notifier.client.conversations import Asked, wait_for
from notifier.client.service_api import ServiceApi
from notifier.dev.machine import free_port, make_temporary_folder
from notifier.dev.twilio_server import running_twilio_server
from notifier.domain.message import new_id
from notifier.domain.notification_status import NotificationStatus
from tests.support.up import Up
from tests.waiting import patient, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
DOCS = EXAMPLES.parent / "docs"
NUMBER = "+15550100123"
MAIL_SECONDS = 10.0


class Service:
    """The running service, and what became of messages."""

    def __init__(self, up: Up) -> None:
        self.up = up
        self.variables = up.variables
        search = ApiSearch(None, self.variables["NOTIFIER_API_URL"], self.variables["NOTIFIER_API_KEY"])
        self._api = ServiceApi(search.find, 5)

    def run(self, script: str, folder: Path) -> str:
        return self.up.shell(script, cwd=folder).strip()

    def of_key(self, key: str) -> NotificationStatus:
        """The notification of an idempotency key, once it is sent or has ended."""
        return self._api.run(wait_for(Asked(new_id(), key.strip()), patient(60)))

    def close(self) -> None:
        self._api.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    if shutil.which("rabbitmq-server") is None:
        pytest.skip("needs RabbitMQ: apt-get install rabbitmq-server")
    folder, port = make_temporary_folder(), free_port()
    slow = [str(EXAMPLES / "django_shop" / "slow_mail_server.py"), str(MAIL_SECONDS), str(port)]
    mail_server = subprocess.Popen([sys.executable, *slow], stdout=subprocess.PIPE)
    try:
        assert mail_server.stdout is not None
        assert mail_server.stdout.readline()
        with running_twilio_server() as twilio, pytest.MonkeyPatch.context() as patch:
            for name in ("SHOP_SQLITE", "SHOP_POSTGRES"):
                patch.delenv(name, raising=False)
            patch.setenv("NOTIFIER_SMTP_URL", f"smtp://127.0.0.1:{port}")
            patch.setenv("NOTIFIER_TWILIO_ACCOUNT_SID", twilio.account_sid)
            patch.setenv("NOTIFIER_TWILIO_AUTH_TOKEN", twilio.auth_token)
            patch.setenv("NOTIFIER_TWILIO_API_BASE", twilio.url)
            patch.setenv("NOTIFIER_API_PORT", str(free_port()))
            with Up(folder, "--broker", "rabbitmq") as up:
                found = Service(up)
                yield found
                found.close()
    finally:
        mail_server.terminate()
        mail_server.communicate()
        shutil.rmtree(folder)


def needs(*programs: str, package: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install {package}")


@pytest.fixture
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the example: what it installs and builds stays out of the checkout."""
    ignored = shutil.ignore_patterns("node_modules", "*.sqlite3", "__pycache__")
    return Path(shutil.copytree(EXAMPLES / request.param, tmp_path / request.param, ignore=ignored))


def test_a_plain_script(service: Service) -> None:
    assert service.run(f"python send_code.py {NUMBER}", EXAMPLES / "plain_script").endswith(
        (" sent", " delivered")
    )


def test_a_celery_teams_own_task(service: Service) -> None:
    service.run("python tasks.py", EXAMPLES / "celery_team")
    assert service.of_key("order-C-1-closed").is_successful


def test_a_fastapi_app(service: Service) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with service.up.terminal(f"exec uvicorn app:app --port {port}", cwd=EXAMPLES / "fastapi_app"):
        wait_until(lambda: _is_up(url + "/docs"), timeout=30)
        answer = _post(url + "/logins", number=NUMBER)
        wait_until(lambda: _get(url + answer["code_sent"]) == {"ready": True, "successful": True}, timeout=60)


def test_the_asyncapi_document_is_valid(tmp_path: Path) -> None:
    needs("npm", package="npm")
    command = ["npm", "install", "--no-package-lock", "--silent", "--prefix", str(tmp_path), "@asyncapi/specs@6"]
    subprocess.run(command, check=True, timeout=patient(100))
    schema = json.loads((tmp_path / "node_modules/@asyncapi/specs/schemas/3.0.0.json").read_text())
    document = json.loads((DOCS / "reference/asyncapi.json").read_text())
    jsonschema.Draft7Validator(schema).validate(document)


def test_a_typescript_client_that_is_generated(service: Service, tmp_path: Path) -> None:
    needs("npm", "npx", package="npm")
    service.run("notifier schema openapi > openapi.json", tmp_path)
    packages = "openapi-typescript@7 openapi-fetch typescript@5 @types/node@20"
    service.run(f"npm install --no-package-lock --silent {packages}", tmp_path)
    (command,) = re.findall(r"`npx (openapi-typescript@7 [^`]*)`", (DOCS / "reference/http-api.md").read_text())
    service.run(f"npx {command.replace('@7', '')}", tmp_path)
    (program,) = blocks("reference/http-api.md", "ts")
    (tmp_path / "send.mts").write_text(program + "if (error) throw error;\nconsole.log(data.id);\n")
    service.run("npx tsc --strict --module nodenext --target es2022 --skipLibCheck send.mts", tmp_path)
    assert UUID(service.run("node send.mjs", tmp_path))


@pytest.mark.parametrize("copied", ["node"], indirect=True)
def test_node(service: Service, copied: Path) -> None:
    needs("node", "npm", package="nodejs npm")
    service.run("npm install --no-package-lock --silent", copied)
    assert service.run(f"node send.mjs {NUMBER}", copied).endswith((" sent", " delivered"))
    assert service.of_key(service.run(f"node publish.mjs {NUMBER}", copied)).is_successful
    # What the pages show, too.
    (program,) = blocks("how-to/publish-from-any-language.md", "js")
    (copied / "page.mjs").write_text(program)
    service.run("node page.mjs", copied)
    assert service.of_key("login-2c52").is_successful
    (program,) = blocks("how-to/use-from-node.md", "js")
    (copied / "page.mjs").write_text(
        program + "if (answer.status !== 202) throw new Error(await answer.text());\n"
    )
    service.run("node page.mjs", copied)
    assert service.of_key("login-5e01").is_successful


def test_curl(service: Service) -> None:
    needs("curl", package="curl")
    found = json.loads(service.run(f"sh send.sh {NUMBER} 042137", EXAMPLES / "shell"))
    assert found["status"] in ("sent", "delivered")
    (command,) = (block for block in blocks("how-to/use-from-a-shell.md") if "curl -K" in block)
    assert UUID(json.loads(service.run(command, EXAMPLES))["id"])


def test_amqp_tools(service: Service) -> None:
    needs("amqp-publish", package="amqp-tools")
    before = _sent_to(service, "+15550100124")
    said = service.run("sh publish.sh +15550100124 042137", EXAMPLES / "shell")
    assert said == "published login_code to +15550100124"
    wrong = "NOTIFIER_BROKER_URL=redis://127.0.0.1:1/0 sh publish.sh +15550100124 042137 2>&1 || echo ended"
    said = service.run(wrong, EXAMPLES / "shell")
    assert "`notifier up --broker rabbitmq`\nended" in said
    wait_until(lambda: _sent_to(service, "+15550100124") == before + 1, timeout=60)


@pytest.mark.parametrize("copied", ["go"], indirect=True)
def test_go(service: Service, copied: Path) -> None:
    needs("go", package="golang-go golang-github-rabbitmq-amqp091-go-dev")
    if not Path("/usr/share/gocode/src/github.com/rabbitmq/amqp091-go").is_dir():
        pytest.skip("needs amqp091-go: apt-get install golang-github-rabbitmq-amqp091-go-dev")
    run = f"GOCACHE={copied}/cache GO111MODULE=off GOPATH=/usr/share/gocode go run publish.go {NUMBER} 042137"
    assert service.of_key(service.run(run, copied)).is_successful


def test_java(service: Service) -> None:
    needs("java", "javac", package="default-jdk-headless librabbitmq-client-java")
    if not Path("/usr/share/java/amqp-client.jar").exists():
        pytest.skip("needs RabbitMQ's Java client: apt-get install librabbitmq-client-java")
    run = f'java -cp "/usr/share/java/*" Publish.java {NUMBER} 042137 2>/dev/null'
    assert service.of_key(service.run(run, EXAMPLES / "java")).is_successful


@pytest.mark.parametrize("copied", ["django_shop"], indirect=True)
def test_the_view_answers_at_once_while_the_worker_takes_ten_seconds(service: Service, copied: Path) -> None:
    service.run("python manage.py migrate --verbosity 0", copied)
    order = "Order.objects.create(number=f'C-{n}', email='ada@example.com', customer_name='Ada', item='Mug')"
    made = f"from orders.models import Order; [{order} for n in range(21)]"
    service.run(f'python manage.py shell -v 0 -c "{made}"', copied)
    port = free_port()
    url = f"http://127.0.0.1:{port}/orders/C-"
    with (
        service.up.terminal("exec python manage.py notifier_relay", cwd=copied),
        service.up.terminal(f"exec python manage.py runserver --noreload {port}", cwd=copied),
    ):
        wait_until(lambda: _is_up(url + "0"), timeout=30)
        took, begun = [], 0.0
        for number in range(21):
            begun = time.monotonic()
            _post(f"{url}{number}/ship", tracking_number=f"PX{number}")
            took.append(time.monotonic() - begun)
        assert not _get(url + "20/mail")["is_ready"]
        wait_until(lambda: _get(url + "20/mail")["is_ready"], timeout=120)
        ready = time.monotonic() - begun
    assert service.of_key("order-C-20-shipped-PX20").status == "sent"
    median = statistics.median(took)
    worst = max(took) * 1000
    print(f"\nthe view: {median * 1000:.1f} ms at the median, {worst:.1f} at most; ready after {ready:.1f} s")
    assert ready >= MAIL_SECONDS
    assert median < patient(0.05)


def blocks(page: str, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def _sent_to(service: Service, number: str) -> int:
    query = urlencode({"recipient": number})
    request = urllib.request.Request(
        f"{service.variables['NOTIFIER_API_URL']}/v1/notifications?{query}",
        headers={"Authorization": f"Bearer {service.variables['NOTIFIER_API_KEY']}"},
    )
    with urllib.request.urlopen(request, timeout=patient(10)) as answer:
        return sum(item["status"] in ("sent", "delivered") for item in json.load(answer)["items"])


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=patient(5)):
            return True
    except OSError:
        return False


def _post(url: str, **form: str) -> Any:
    with urllib.request.urlopen(url, urlencode(form).encode(), timeout=patient(20)) as answer:
        return json.load(answer)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=patient(20)) as answer:
        return json.load(answer)
