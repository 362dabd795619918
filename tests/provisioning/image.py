"""`make image-test`: the image and docker-compose.yml, as production runs them. For root on Debian, with podman.

Every program runs as a user without a name, on a read-only root, without capabilities. Its health check has
to say that it works, that it hangs once it is stopped, and that it works again; SIGTERM has to end it in order. A
mail goes through. Then everything of the compose file runs under podman-compose, from nothing: see `compose_file`.
Where no registry of images can be reached, a stand-in for the official image of Python is made of Debian's
packages; it is kept in .venv.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from urllib.request import urlopen

from notifier.dev.machine import free_port
from notifier.dev.smtp_server import MailServer, running_mail_server
from tests.provisioning.commands import run_in_order
from tests.provisioning.compose_file import CONTEXT, check_compose
from tests.provisioning.databases import Databases
from tests.provisioning.podman import PATIENCE, ROOT, Podman, podman, run, say
from tests.provisioning.services import Services
from tests.waiting import wait_until

IMAGE = "localhost/notifier:local"
#: A user that the image does not know, in root's group, as OpenShift has it.
ANYBODY = "1000650000:0"
#: The largest image, in bytes.
MOST_BYTES = 200_000_000
CONFINED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges")
#: Limits are named, because a container has no right to raise them to those that podman asks for.
LIMITS = ("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096", "--network=host", "--health-interval=disable")

PROGRAMS: Mapping[str, Sequence[str]] = {
    "intake": ["intake"],
    "worker": ["worker", "--no-callbacks"],
    "callbacks": ["callbacks", "run"],
    "beat": ["beat"],
    "bounces": ["bounces", "--listen", "127.0.0.1:{port}"],
    "api": ["api"],
}


def main() -> int:
    """Run it all; 0 if everything worked."""
    return run_in_order(_check_image)


def build(own: Podman) -> None:
    """The image, on the official Python or on a stand-in."""
    begun = time.monotonic()
    options = ["--isolation=chroot", "--network=host", "--format=docker", "--quiet", "--tag", IMAGE]
    base = next(line.partition("=")[2] for line in _dockerfile() if line.startswith("ARG PYTHON_IMAGE="))
    if own.fails("pull", "--quiet", base) is not None:
        base = "localhost/python:stand-in"
        say("no registry of images can be reached: Python's official image has a stand-in of Debian's packages")
        own("import", "--change=ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", _stand_in(), base)
    # Two minutes of one core, but of a busy machine.
    own("build", *options, "--pull=never", f"--build-arg=PYTHON_IMAGE={base}", ".", seconds=3600)
    [found] = json.loads(own("image", "inspect", IMAGE))
    size = found["Size"]
    assert size <= MOST_BYTES, f"{size} bytes are more than {MOST_BYTES}"
    assert found["Config"]["User"] == "10001:10001"
    assert found["Healthcheck"]["Test"] == ["CMD", "notifier", "health"]
    say(f"built on {base} in {time.monotonic() - begun:.0f} s: {size / 1e6:.0f} MB")


def _dockerfile() -> list[str]:
    return (ROOT / "Dockerfile").read_text("utf-8").splitlines()


def _stand_in() -> Path:
    """An archive for `podman import`, made once for each Python."""
    homes = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.12.*")
    python = max(homes, default=Path(sys.base_prefix))
    kept = ROOT / ".venv" / f"image-base-{python.name}.tar"
    if not kept.exists():
        say(f"making it with the Python of {python.name}, once: three minutes")
        begun = kept.with_suffix(".begun")
        run(["sh", ROOT / "tests" / "provisioning" / "image_base.sh", begun, python])
        begun.rename(kept)
    return kept


class SocketFolder:
    """A database of this machine, for containers: where it listens in a folder only, that is mounted into them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.volumes: list[str] = []
        folder = Path(dict(parse_qsl(urlsplit(url).query)).get("host", ""))
        if folder.is_absolute():
            for path in (folder, *folder.glob(".s.PGSQL.*")):
                path.chmod(0o777)
            self.volumes.append(f"{folder}:/run/database")
            self.url = f"{url.partition('?')[0]}?host=/run/database"

    @property
    def options(self) -> list[str]:
        """For `podman run`."""
        return [f"--volume={volume}" for volume in self.volumes]


class Container:
    """A program that runs detached."""

    def __init__(self, own: Podman, name: str, environment: Mapping[str, str], sockets: SocketFolder) -> None:
        self.name, self._podman = name, own
        arguments = [part.format(port=free_port()) for part in PROGRAMS[name]]
        self.ports = {"NOTIFIER_METRICS_PORT": str(free_port()), "NOTIFIER_API_PORT": str(free_port())}
        given = [f"--env={key}={value}" for key, value in {**environment, **self.ports}.items()]
        options = ["--detach", f"--user={ANYBODY}", "--pull=never", *CONFINED, *LIMITS, *sockets.options, *given]
        self.id = own("run", *options, IMAGE, *arguments).splitlines()[-1]

    def unhealthy(self) -> str | None:
        """What its health check says; None: it is healthy."""
        return self._podman.fails("healthcheck", "run", self.id)

    def is_healthy(self) -> bool:
        return self._podman.is_healthy(self.id)

    def check(self) -> str:
        """Healthy; not while it is stopped; healthy again; ended by SIGTERM. Returns what it took."""
        begun = time.monotonic()
        wait_until(self.is_healthy, PATIENCE, every=1)
        started = time.monotonic() - begun
        self._podman("kill", "--signal=STOP", self.id)
        assert self.unhealthy() is not None, f"{self.name} hangs, and its health check does not say so"
        self._podman("kill", "--signal=CONT", self.id)
        wait_until(self.is_healthy, PATIENCE, every=1)
        return f"{self.name}: healthy after {started:.0f} s, unhealthy while it hung"

    def stop(self) -> str:
        """Ended by SIGTERM, in order."""
        begun = time.monotonic()
        self._podman("stop", "--time=60", self.id)
        code = self._podman("inspect", "--format={{.State.ExitCode}}", self.id)
        assert code == "0", f"{self.name} ended with {code}:\n{self._podman.log(self.id)}"
        assert "Traceback" not in self._podman.log(self.id), self._podman.log(self.id)
        return f"{self.name} {time.monotonic() - begun:.1f} s"


def check_programs(own: Podman, environment: Mapping[str, str], sockets: SocketFolder, mail: MailServer) -> None:
    """Every program, each confined."""
    given = [f"--env={key}={value}" for key, value in environment.items()]
    command = ["run", "--rm", f"--user={ANYBODY}", *CONFINED, *LIMITS, *sockets.options, *given, IMAGE]
    say(own(*command, "--version").splitlines()[-1])
    check_what_programs_look_up(own)
    own(*command, "db", "upgrade")
    containers = [Container(own, name, environment, sockets) for name in PROGRAMS]
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(Container.check, containers):
            say(line)
        [api] = [container for container in containers if container.name == "api"]
        with urlopen(f"http://127.0.0.1:{api.ports['NOTIFIER_API_PORT']}/readyz", timeout=PATIENCE) as answer:
            assert answer.status == 200
        own(*command, "send", "order_shipped", "ann@example.com", "--context", json.dumps(CONTEXT))
        wait_until(lambda: len(mail.messages) == 1, PATIENCE)
        say("a mail went through")
        say(f"SIGTERM ended each in order: {', '.join(pool.map(Container.stop, containers))}")


def check_what_programs_look_up(own: Podman) -> None:
    """Time zones, certificates and languages are there without a file of the host, languages as Babel has them."""
    options = ["--rm", "--entrypoint=python", "--env=TZ=Europe/Berlin", *CONFINED, *LIMITS]
    found = own("run", *options, IMAGE, "-c", _LOOKED_UP).splitlines()[-1]
    own_zone, schedules, authorities, *texts = json.loads(found)
    assert own_zone == "CEST", own_zone
    assert schedules == 2 * 3600, schedules
    assert authorities > 100, authorities
    assert texts == json.loads(run([sys.executable, "-c", _LOOKED_UP], env={"TZ": "Europe/Berlin"}))[3:]
    say(f"time zones, {authorities} authorities, languages: {texts[2]}")


#: Of a day in summer.
_LOOKED_UP = """
import json, ssl, time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo
from babel.dates import format_datetime
from babel.numbers import format_currency

day = datetime(2026, 7, 1, 9, tzinfo=ZoneInfo("Europe/Berlin"))
places = ssl.get_default_verify_paths()
texts = [
    f"{format_datetime(day, 'full', locale=locale)} {format_currency(1234.5, 'EUR', locale=locale)}"
    for locale in ("en", "de_CH", "ar", "ja", "uk", "zh_Hant", "sr_Latn", "pt_BR", "hi", "cy")
]
print(json.dumps([
    time.strftime("%Z", time.localtime(day.timestamp())),
    day.utcoffset().seconds,
    len(ssl.create_default_context().get_ca_certs()) or len(list(Path(places.capath or "").glob("*.0"))),
    *texts,
]))
"""


def _check_image() -> int:
    begun = time.monotonic()
    services = Services(say)
    services.prepare(["postgres", "rabbitmq"])
    try:
        with podman() as own, running_mail_server() as mail:
            build(own)
            sockets = SocketFolder(Databases(services.postgres_url()).make_empty())
            environment = {
                "NOTIFIER_DATABASE_URL": sockets.url,
                "NOTIFIER_BROKER_URL": services.amqp_server().make_vhost(),
                "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{mail.port}?starttls=never",
                "NOTIFIER_EMAIL_FROM": "shop@example.com",
                "NOTIFIER_HASH_KEY": "a key of sixteen or more",
                "NOTIFIER_BOUNCE_ADDRESS": "bounces@example.com",
            }
            check_programs(own, environment, sockets, mail)
            check_compose(own)
    finally:
        services.stop()
    say(f"all of it works, in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
