"""What `notifier up` and `notifier demo` start for settings that are not set: database, broker, mail, Twilio.

Every part that is configured is left alone; each of the others gets a local server, and the variables that point
to it go to the programs of the service, which run the same code as in production.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from notifier.config.settings import RUNNING_FILE, Settings, bundled
from notifier.dev.embedded import EmbeddedPostgres, EmbeddedValkey
from notifier.dev.machine import free_port, is_free
from notifier.dev.smtp_server import MailServer, Rule, running_mail_server
from notifier.dev.twilio_server import TwilioServer, running_twilio_server

#: Where the local servers of `notifier up` listen if nobody else does, so that they can be found again.
MAIL_PORT, TWILIO_PORT = 2525, 2580


@dataclass(frozen=True, slots=True)
class Place:
    """One part of the world and where it is, for people."""

    name: str
    where: str


@dataclass(slots=True)
class LocalWorld:
    """What was started, and the variables that lead there."""

    environment: dict[str, str] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    mail: MailServer | None = None
    twilio: TwilioServer | None = None


@contextmanager
def local_world(
    settings: Settings,
    data_dir: Path,
    *,
    mail_rules: Sequence[Rule] = (),
    fixed_ports: bool = False,
) -> Iterator[LocalWorld]:
    """Start what the settings lack, on `data_dir`; stop it at the end.

    With `fixed_ports` mail and Twilio listen on their usual ports where those are free.

    Raises:
        ConfigurationError, ServiceUnavailable: if a server cannot be started; what was started is stopped.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    world = LocalWorld()
    with ExitStack() as stack:
        _start_stores(stack, world, settings, data_dir)
        if not settings.provider_tables():
            _start_providers(stack, world, data_dir, mail_rules, fixed_ports)
        if settings.config is None and not settings.structure.senders:
            world.environment["NOTIFIER_CONFIG"] = str(bundled("notifier.toml"))
        yield world


def _start_stores(stack: ExitStack, world: LocalWorld, settings: Settings, data_dir: Path) -> None:
    """Database and broker, both at once: each takes a second or two."""
    starts: list[tuple[str, str, Callable[[], str]]] = []
    if settings.database_url is None:
        postgres = EmbeddedPostgres(data_dir)
        stack.callback(postgres.stop)
        starts.append(("NOTIFIER_DATABASE_URL", "PostgreSQL", postgres.start))
    if settings.broker_url is None:
        valkey = EmbeddedValkey(data_dir)
        stack.callback(valkey.stop)
        starts.append(("NOTIFIER_BROKER_URL", "Valkey", valkey.start))
    with ThreadPoolExecutor() as pool:
        urls = list(pool.map(lambda start: start[2](), starts))
    for (variable, name, _), url in zip(starts, urls, strict=True):
        world.environment[variable] = url
        world.places.append(Place(name, f"{data_dir / name.lower().replace('postgresql', 'postgres')} (embedded)"))


def _start_providers(
    stack: ExitStack,
    world: LocalWorld,
    data_dir: Path,
    mail_rules: Sequence[Rule],
    fixed_ports: bool,
) -> None:
    def port(usual: int) -> int:
        return usual if fixed_ports and is_free(usual) else 0

    mails = data_dir / "mail"
    world.mail = stack.enter_context(
        running_mail_server(MailServer(mail_rules, folder=mails), port=port(MAIL_PORT))
    )
    world.twilio = stack.enter_context(running_twilio_server(port=port(TWILIO_PORT)))
    world.environment |= {
        "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{world.mail.port}?starttls=never",
        "NOTIFIER_TWILIO_ACCOUNT_SID": world.twilio.account_sid,
        "NOTIFIER_TWILIO_AUTH_TOKEN": world.twilio.auth_token,
        "NOTIFIER_TWILIO_API_BASE": world.twilio.url,
    }
    world.places += [
        Place("mail", f"smtp://127.0.0.1:{world.mail.port}, kept in {mails}"),
        Place("Twilio", f"{world.twilio.url} (local, sends nothing)"),
    ]


def with_api(world: LocalWorld, port: int | None = None) -> dict[str, str]:
    """Variables of an HTTP API on this port of the machine (None: a free one); none if its packages are missing.

    A local Twilio is told to report there. A real one could not reach it, and would refuse every message for it.
    """
    if not has_web():
        return {}
    port = port or free_port()
    if world.twilio is not None:
        world.environment.setdefault("NOTIFIER_PUBLIC_URL", f"http://127.0.0.1:{port}")
    return {"NOTIFIER_API_PORT": str(port)}


def has_web() -> bool:
    return all(find_spec(name) is not None for name in ("fastapi", "uvicorn", "authlib"))


@contextmanager
def announced(data_dir: Path, environment: dict[str, str]) -> Iterator[None]:
    """While the block lasts, other `notifier` commands of this user find these servers without any setting."""
    path = data_dir / RUNNING_FILE
    content = "".join(f"{name}='{value}'\n" for name, value in environment.items())
    unfinished = path.with_suffix(".part")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    unfinished.rename(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
