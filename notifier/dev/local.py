"""Starts what `notifier up` and `notifier demo` need for settings that are not set: database, broker, mail,
Twilio.

Parts that are configured are left alone. Each of the others gets a local server, and the variables that point to
it are passed to the service's programs, which run the same code as in production.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from notifier.config.running_service import RUNNING_FILE, SERVICE_FILE, RunningService
from notifier.config.settings import Settings, bundled
from notifier.dev.embedded import EmbeddedPostgres, EmbeddedRabbitmq, EmbeddedValkey
from notifier.dev.embedded.server import EmbeddedServer
from notifier.dev.machine import free_port, is_free, make_data_folder, write_private
from notifier.dev.smtp_server import MailServer, Rule, running_mail_server
from notifier.dev.twilio_server import TwilioServer, running_twilio_server
from notifier.domain.errors import ConfigurationError

LocalBroker = Literal["valkey", "rabbitmq"]

#: Where the local servers of `notifier up` listen if the ports are free, so that people find them again.
MAIL_PORT, TWILIO_PORT = 2525, 2580


@dataclass(frozen=True, slots=True)
class Place:
    """One part of the surroundings and where it is, for people."""

    name: str
    where: str


@dataclass(slots=True)
class LocalWorld:
    """What was started, and the variables that lead there."""

    environment: dict[str, str] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    mail: MailServer | None = None
    twilio: TwilioServer | None = None
    servers: list[EmbeddedServer] = field(default_factory=list)

    def keep_servers(self, died: Callable[[str, float], None]) -> None:
        """`EmbeddedServer.keep` of each of our servers."""
        for server in self.servers:
            server.keep(died)

    def check_servers(self) -> None:
        """`EmbeddedServer.check` of each of our servers."""
        for server in self.servers:
            server.check()


@contextmanager
def local_world(
    settings: Settings,
    data_dir: Path,
    *,
    broker: LocalBroker | None = None,
    mail_rules: Sequence[Rule] = (),
    fixed_ports: bool = False,
) -> Iterator[LocalWorld]:
    """Start what the settings lack, in `data_dir`, and stop it at the end. Without a `broker`, Valkey is started.

    With `fixed_ports`, mail and Twilio listen on their usual ports if these are free.

    Raises:
        ConfigurationError, ServiceUnavailable: a server cannot be started; what was started is stopped.
    """
    make_data_folder(data_dir)
    world = LocalWorld()
    with ExitStack() as stack:
        _start_stores(stack, world, settings, data_dir, broker)
        # If notifier.toml has tables of providers, they are complete: the environment adds none to them.
        if not settings.structure.providers:
            configured = {table.kind for table in settings.provider_tables()}
            if "smtp" not in configured:
                _start_mail(stack, world, data_dir, mail_rules, fixed_ports)
            if "twilio" not in configured:
                _start_twilio(stack, world, fixed_ports)
        if settings.config is None and not settings.structure.senders:
            world.environment["NOTIFIER_CONFIG"] = str(bundled("notifier.toml"))
        yield world


def _start_stores(
    stack: ExitStack, world: LocalWorld, settings: Settings, data_dir: Path, broker: LocalBroker | None
) -> None:
    """Start database and broker at the same time: each takes a second or two, RabbitMQ more."""
    starts: list[tuple[str, EmbeddedServer]] = []
    if settings.database_url is None:
        postgres = EmbeddedPostgres(data_dir)
        stack.callback(postgres.stop)
        starts.append(("NOTIFIER_DATABASE_URL", postgres))
    valkey, rabbitmq = EmbeddedValkey(data_dir), EmbeddedRabbitmq(data_dir)
    # The setting may be the URL of an earlier run, pasted into this terminal.
    if settings.broker_url is None or settings.require("broker_url") in (valkey.kept_url(), rabbitmq.kept_url()):
        chosen = rabbitmq if broker == "rabbitmq" else valkey
        stack.callback(chosen.stop)
        starts.append(("NOTIFIER_BROKER_URL", chosen))
    elif broker is not None:
        raise ConfigurationError(
            "NOTIFIER_BROKER_URL is set, so its broker is used: unset it, or leave --broker out",
            setting="NOTIFIER_BROKER_URL",
        )
    with ThreadPoolExecutor() as pool:
        urls = list(pool.map(lambda start: start[1].start(), starts))
    for (variable, server), url in zip(starts, urls, strict=True):
        world.environment[variable] = url
        world.servers.append(server)
        world.places.append(Place(server.name, f"{server.home} (embedded)"))


def _start_mail(
    stack: ExitStack, world: LocalWorld, data_dir: Path, rules: Sequence[Rule], fixed_ports: bool
) -> None:
    mails = data_dir / "mail"
    server = MailServer(rules, folder=mails)
    world.mail = stack.enter_context(running_mail_server(server, port=_port(MAIL_PORT, fixed_ports)))
    world.environment["NOTIFIER_SMTP_URL"] = f"smtp://127.0.0.1:{world.mail.port}?starttls=never"
    world.places.append(Place("mail", f"smtp://127.0.0.1:{world.mail.port}, kept in {mails}"))


def _start_twilio(stack: ExitStack, world: LocalWorld, fixed_ports: bool) -> None:
    world.twilio = stack.enter_context(running_twilio_server(port=_port(TWILIO_PORT, fixed_ports)))
    world.environment |= {
        "NOTIFIER_TWILIO_ACCOUNT_SID": world.twilio.account_sid,
        "NOTIFIER_TWILIO_AUTH_TOKEN": world.twilio.auth_token,
        "NOTIFIER_TWILIO_API_BASE": world.twilio.url,
    }
    world.places.append(Place("Twilio", f"{world.twilio.url} (local, sends nothing)"))


def _port(usual: int, fixed_ports: bool) -> int:
    return usual if fixed_ports and is_free(usual) else 0


def with_api(world: LocalWorld, port: int | None = None) -> dict[str, str]:
    """Variables for an HTTP API on this port of the machine (None: a free one); none if its packages are missing.

    A local Twilio is told to report there. A real Twilio could not reach it, and would refuse every message for
    that reason; and real mails would have unsubscribe links that lead nowhere.
    """
    if not has_web():
        return {}
    port = port or free_port()
    if world.twilio is not None and world.mail is not None:
        world.environment.setdefault("NOTIFIER_PUBLIC_URL", f"http://127.0.0.1:{port}")
    return {"NOTIFIER_API_PORT": str(port)}


def has_web() -> bool:
    return all(find_spec(name) is not None for name in ("fastapi", "uvicorn", "authlib"))


def _quoted(value: str) -> str:
    """The value, quoted for the settings file."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def announced(data_dir: Path, environment: Mapping[str, str], service: RunningService) -> Iterator[None]:
    """While the block lasts, commands and producers of this user find these servers without any setting."""
    contents = {
        SERVICE_FILE: json.dumps(asdict(service), indent=2) + "\n",
        RUNNING_FILE: "".join(f"{name}={_quoted(value)}\n" for name, value in environment.items()),
    }
    for name, content in contents.items():
        write_private(data_dir / name, content)
    try:
        yield
    finally:
        for name in contents:
            (data_dir / name).unlink(missing_ok=True)
