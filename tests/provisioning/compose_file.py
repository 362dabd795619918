"""docker-compose.yml from nothing, as its guide says: a part of `make image-test`.

A folder gets what a newcomer has: the compose file, `.env` and `service.env` filled in from their examples, and
what the guide says about a certificate of one's own. podman-compose runs all services on a network of their own,
each confined as the file says. The images of PostgreSQL and RabbitMQ have stand-ins: this machine's own programs.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import yaml

from notifier.client.client import Client
from notifier.dev.machine import free_port
from notifier.dev.server_thread import running
from notifier.dev.smtp_server import MailServer, MailServerOptions
from tests.provisioning.podman import PATIENCE, ROOT, Podman, run, say
from tests.provisioning.services import find_postgres
from tests.waiting import wait_until

TOOL = "podman-compose==1.6.0"
GUIDE = ROOT / "docs" / "how-to" / "run-with-docker-compose.md"
PROFILES = ("--profile=bounces", "--profile=flower")
#: They do one thing and end.
COMMANDS = ("broker-users", "migrate", "rights")
SERVERS = ("postgres", "rabbitmq")
#: The host, as containers know it.
RELAY = "host.containers.internal"
CONTEXT = {
    "customer_name": "Ann",
    "order_id": "1",
    "carrier": "PX",
    "items": [],
    "tracking_url": "https://t.example.com/1",
}


class Installation:
    """A folder with the compose file, and podman-compose in it."""

    def __init__(self, own: Podman) -> None:
        self._podman = own
        self.folder = own.folder / "installation"
        self.relay_port = free_port()
        self.password = secrets.token_hex(16)
        tools = own.folder / "compose"
        run([sys.executable, "-m", "venv", tools])
        run([tools / "bin" / "pip", "--disable-pip-version-check", "-qq", "install", TOOL])
        #: Its own, so that nobody else's containers on this machine have the same names.
        self.project = f"notifier-{secrets.token_hex(4)}"
        options = ["--podman-path", own.wrapper(), "--in-pod=0", "--project-name", self.project]
        self._tool = [tools / "bin" / "podman-compose", *options]
        self._environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(own.folder)}
        self._fill()
        self.services: dict[str, Any] = yaml.safe_load(self(*PROFILES, "config"))["services"]
        self.programs = [name for name in self.services if name not in (*COMMANDS, *SERVERS)]

    def __call__(self, *arguments: str) -> str:
        return run([*self._tool, *arguments], env=self._environment, folder=self.folder)

    def container(self, service: str) -> str:
        """The id of its container, ended or not."""
        wanted = f"--filter=label=com.docker.compose.service={service}"
        return self._podman("ps", "--all", "--quiet", "--latest", wanted)

    def port(self, service: str) -> int:
        """Of this host."""
        return int(self.services[service]["ports"][0].split(":")[1])

    def _fill(self) -> None:
        shutil.copytree(ROOT / "deploy", self.folder / "deploy")
        shutil.copytree(ROOT / "templates", self.folder / "templates")
        shutil.copy(ROOT / "notifier.toml", self.folder)
        compose = _on_this_machine((ROOT / "docker-compose.yml").read_text("utf-8"))
        (self.folder / "docker-compose.yml").write_text(compose, "utf-8")
        relay = f"smtp://{RELAY}:{self.relay_port}?starttls=required"
        values = {"NOTIFIER_SMTP_URL": relay, "BROKER_PRODUCERS": f"shop:{self.password}"}
        values["FLOWER_BASIC_AUTH"] = f"operator:{self.password}"
        (self.folder / ".env").write_text(_filled(".env.example", values), "utf-8")
        values = {"NOTIFIER_BOUNCE_ADDRESS": "bounces@example.com", "SSL_CERT_FILE": "/srv/notifier/ca.pem"}
        (self.folder / "service.env").write_text(_filled("service.env.example", values), "utf-8")
        [override] = re.findall(r"^```yaml\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        (self.folder / "docker-compose.override.yml").write_text(override, "utf-8")
        subject = ["-subj", f"/CN={RELAY}", "-addext", f"subjectAltName=DNS:{RELAY}"]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        files = ["-keyout", self.folder / "key.pem", "-out", self.folder / "ca.pem"]
        run(["openssl", "req", "-x509", *curve, *subject, *files])

    def relay(self) -> MailServer:
        """A mail server whose certificate nobody knows but those who were given it."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.folder / "ca.pem", self.folder / "key.pem")
        return MailServer(options=MailServerOptions(hostname=RELAY, tls=tls))


def check_compose(own: Podman) -> None:
    """All of it: started from nothing, used, stopped, started again."""
    _make_servers(own)
    installed = Installation(own)
    say(f"podman-compose reads the compose file: {len(installed.services)} services")
    try:
        _start(own, installed)
        gateway = json.loads(own("network", "inspect", f"{installed.project}_default"))[0]["subnets"][0]["gateway"]
        with running(installed.relay(), host=gateway, port=installed.relay_port) as relay:
            _use(installed, relay, 1)
            _check_flower(own, installed)
            installed("--profile=retention", "run", "--rm", "--no-deps", "retention")
            _stop(own, installed)
            # As after a restart of the host: with what the volumes hold.
            _start(own, installed)
            _use(installed, relay, 2)
            say("stopped and started again: nothing is forgotten")
    finally:
        installed(*PROFILES, "down", "--volumes", "--timeout=60")


def _start(own: Podman, installed: Installation) -> None:
    """In the order of the file: podman-compose cannot wait for health with the podman of Debian 12."""
    begun = time.monotonic()
    _up(installed, SERVERS)
    for service in SERVERS:
        _wait_for_health(own, installed.container(service))
    for commands in (("migrate", "broker-users"), ("rights",)):
        _up(installed, commands)
        for service in commands:
            container = installed.container(service)
            code = own("wait", container, seconds=PATIENCE * 4)
            assert code == "0", f"{service} ended with {code}:\n{own.log(container)}"
    _up(installed, installed.programs)
    for service in installed.programs:
        _wait_for_health(own, installed.container(service))
    names = ", ".join((*SERVERS, *installed.programs))
    say(f"healthy under podman-compose, as the file confines them, in {time.monotonic() - begun:.0f} s: {names}")


def _up(installed: Installation, services: Sequence[str]) -> None:
    installed(*PROFILES, "up", "--detach", "--no-deps", *services)


def _wait_for_health(own: Podman, container: str) -> None:
    wait_until(lambda: own.is_healthy(container), PATIENCE, every=1)


def _use(installed: Installation, relay: MailServer, count: int) -> None:
    """A producer's own user publishes, and the mail leaves with TLS."""
    url = f"amqp://shop:{installed.password}@127.0.0.1:{installed.port('rabbitmq')}/notifier"
    with Client(url, producer="shop") as client:
        client.send("order_shipped", "ann@example.com", context=CONTEXT)
    wait_until(lambda: len(relay.messages) == count, PATIENCE)
    with urlopen(f"http://127.0.0.1:{installed.port('api')}/readyz", timeout=PATIENCE) as answer:
        assert answer.status == 200
    found = installed("exec", "-T", "api", "notifier", "search", "--producer", "shop", "--json")
    assert found.count('"delivered"') + found.count('"sent"') >= count, found
    say("a producer's own broker user published, and the mail left with TLS by a certificate of our own")


def _check_flower(own: Podman, installed: Installation) -> None:
    """It asks for the password, and says when it hangs."""
    with pytest.raises(HTTPError, match="401"):
        urlopen(f"http://127.0.0.1:{installed.port('flower')}/", timeout=PATIENCE)
    container = installed.container("flower")
    own("kill", "--signal=STOP", container)
    assert own.fails("healthcheck", "run", container) is not None, (
        "flower hangs, and its health check does not say so"
    )
    own("kill", "--signal=CONT", container)
    _wait_for_health(own, container)


def _stop(own: Podman, installed: Installation) -> None:
    begun = time.monotonic()
    installed(*PROFILES, "stop")
    for service in (*SERVERS, *installed.programs):
        container = installed.container(service)
        code = own("inspect", "--format={{.State.ExitCode}}", container)
        assert code == "0", f"{service} ended with {code}:\n{own.log(container)}"
    say(f"`stop` ended each in order, in {time.monotonic() - begun:.0f} s")


def _filled(name: str, values: Mapping[str, str]) -> str:
    """An example with a value for every variable that it leaves empty, and these."""
    text = (ROOT / name).read_text("utf-8")
    text = re.sub(r"^(\w+)=$", lambda found: f"{found[1]}={secrets.token_hex(24)}", text, flags=re.MULTILINE)
    for key, value in values.items():
        text, count = re.subn(rf"^#?{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
        assert count == 1, f"{name} has no {key}"
    return text


def _on_this_machine(text: str) -> str:
    """The compose file with free ports of this host and the image that is there already. Limits are named, because
    a container has no right to raise them to those that podman asks for."""
    text = re.sub(r"127\.0\.0\.1:\d+:", lambda _: f"127.0.0.1:{free_port()}:", text)
    content = yaml.safe_load(text)
    for service in content["services"].values():
        service.pop("build", None)
        service["ulimits"] = {"nofile": {"soft": 4096, "hard": 4096}, "nproc": 4096}
        if not service["image"].startswith("notifier:"):
            service["volumes"] += ["/usr:/usr:ro", "/etc/alternatives:/etc/alternatives:ro"]
    # podman itself makes /run a tmpfs, and a second one inside it the superuser's.
    content["services"]["postgres"]["tmpfs"] = ["/tmp"]
    return str(yaml.safe_dump(content, sort_keys=False))


def _make_servers(own: Podman) -> None:
    postgres = find_postgres()
    if postgres is None:
        raise SystemExit("image-test needs PostgreSQL 15 or newer: apt-get install postgresql")
    root = own.folder / "servers"
    run(["sh", ROOT / "tests" / "provisioning" / "compose_stand_ins.sh", root, postgres])
    archive = root.with_suffix(".tar")
    run(["tar", "-C", root, "-cf", archive, "."])
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    path = f"ENV PATH={postgres}:/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin"
    for name in SERVERS:
        start = ['ENTRYPOINT ["/start"]', 'CMD ["rabbitmq-server"]']
        changes = [f"--change={change}" for change in (path, *start)]
        own("import", *changes, archive, f"localhost/{services[name]['image']}")
