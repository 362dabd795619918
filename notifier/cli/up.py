"""`notifier up`: runs the whole service on this machine, without any set-up."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from typer import Option

from notifier.cli.output import clean, hint, print_line, print_parts, warn
from notifier.cli.services import program_settings
from notifier.config.running_service import default_data_dir

if TYPE_CHECKING:
    from notifier.config.running_service import RunningService
    from notifier.config.settings import Settings
    from notifier.dev.forking import ProgramLauncher
    from notifier.dev.local import LocalBroker, LocalWorld, Place
    from notifier.dev.programs import Programs

#: How much longer than its programs `up` has to stop, because its servers end after them. Seconds.
SERVERS_SECONDS = 45.0
_SMS_EXAMPLE = "send login_code +15550100123 --context code=042137 --context valid_minutes=10 --wait 10"
_MAIL_EXAMPLE = (
    "send password_reset ann@example.com --context reset_url=https://shop.example.com/reset "
    "--context valid_minutes=30 --wait 10"
)
_STYLES = {"warning": "yellow", "error": "red", "critical": "bold red"}


def up(
    broker: Annotated[
        Literal["valkey", "rabbitmq"] | None,
        Option(help="Broker to start: the embedded Valkey, or the RabbitMQ that is installed. Default: valkey."),
    ] = None,
    reload: Annotated[
        bool,
        Option("--reload", help="Restart the programs when their code, templates or notifier.toml change."),
    ] = False,
) -> None:
    """Run the whole service on this machine, and start whatever is not configured.

    Without settings: an embedded PostgreSQL and Valkey, and a local mail server and Twilio that store what they
    receive. The data is kept between runs. Ctrl-C stops everything in order.
    """
    begun = time.monotonic()
    settings = program_settings("up", use_running=False)
    from notifier.dev.forking import ProgramLauncher

    # First of all, because it imports what the programs need while the servers start.
    with ProgramLauncher() as launcher:
        _run(settings, launcher, begun, broker, reload)
    hint("stopped; the data is kept")


def _run(
    settings: Settings, launcher: ProgramLauncher, begun: float, broker: LocalBroker | None, reload: bool
) -> None:
    from notifier.dev.local import announced, local_world
    from notifier.dev.log_lines import LogFollower
    from notifier.dev.reload import Reloader
    from notifier.runtime.shutdown import stop_on_signals
    from notifier.store.schema.upgrade import upgrade

    stop = stop_on_signals(settings.grace_seconds + SERVERS_SECONDS)
    data_dir = settings.data_dir.expanduser().absolute()
    hint(f"starting what is not configured, in {data_dir}")
    with local_world(settings, data_dir, broker=broker, fixed_ports=True) as world:
        upgrade(_database_url(settings, world))
        service, programs = _prepare(settings, world, data_dir, launcher)
        follower = LogFollower(programs.logs, stop, _show_line)
        with announced(data_dir, {**world.environment, **_hash_key(settings)}, service), programs:
            port = _port(service)
            is_ready = programs.wait_until_ready(stop, port)
            _print_state(programs, is_ready, time.monotonic() - begun)
            _print_running(world.places, service)
            _print_lines(_variables(data_dir, service), _example(settings, world))
            follower.start()
            reloader = Reloader(settings, programs, launcher, stop, hint, warn, port) if reload else None

            def check() -> None:
                world.keep_servers(_say_death_of_server)
                if reloader:
                    reloader.check()

            programs.watch(stop, _say_death, check)
            hint("stopping: what is in flight is finished first")
        follower.join()


def _say_death(program: str, pause: float) -> None:
    warn(f"{program} ended; it starts again in {pause:g} s")


def _say_death_of_server(server: str, pause: float) -> None:
    when = f" in {pause:g} s" if pause else ""
    warn(f"{server} ended; it starts again{when}, on its data")


def _database_url(settings: Settings, world: LocalWorld) -> str:
    return world.environment.get("NOTIFIER_DATABASE_URL") or settings.require("database_url")


def _prepare(
    settings: Settings, world: LocalWorld, data_dir: Path, launcher: ProgramLauncher
) -> tuple[RunningService, Programs]:
    """Where producers find the service, and its programs, which are not started yet."""
    from notifier.config.running_service import RunningService
    from notifier.dev.console_key import console_key
    from notifier.dev.local import Place, with_api
    from notifier.dev.machine import is_free, kept_port
    from notifier.dev.programs import API, PROGRAMS, Programs
    from notifier.intake.producers import check_broker, in_words

    broker_url = world.environment.get("NOTIFIER_BROKER_URL") or settings.require("broker_url")
    check_broker(settings.structure, broker_url)
    if settings.public_url:
        world.environment["NOTIFIER_PUBLIC_URL"] = settings.public_url
    # A port that is taken is replaced, like those of mail and Twilio.
    api = with_api(
        world, settings.api_port if is_free(settings.api_port) else kept_port(data_dir / "api-port.txt")
    )
    wanted = {**API, **PROGRAMS} if api else PROGRAMS
    own, metrics = _metrics_ports(settings, wanted)
    logs = data_dir / "logs"
    world.places += [
        *metrics,
        Place("logs", str(logs)),
        Place("producers", in_words(settings.structure, broker_url)),
    ]
    # Whether the database is ours alone; we do not make keys in other people's databases.
    is_ours = "NOTIFIER_DATABASE_URL" in world.environment
    service = RunningService(
        broker_url,
        f"http://127.0.0.1:{api['NOTIFIER_API_PORT']}" if api else None,
        console_key(_database_url(settings, world), data_dir) if is_ours and api else None,
    )
    # The logs are for people to read.
    style = {"NOTIFIER_LOG_FORMAT": "text"} if settings.log_format == "auto" else {}
    programs = Programs(
        {**world.environment, **style, **api},
        logs,
        own,
        wanted,
        grace_seconds=settings.grace_seconds,
        launch=launcher.launch,
    )
    return service, programs


def _port(service: RunningService) -> int | None:
    return urlsplit(service.api_url).port if service.api_url else None


def _print_state(programs: Programs, is_ready: bool, seconds: float) -> None:
    if is_ready:
        print_line(f"ready after {seconds:.1f} s", "bold green")
    else:
        ended = [name for name, runs in programs.running.items() if not runs]
        why = f", {', '.join(ended)} ended" if ended else ""
        warn(f"not ready after {seconds:.0f} s{why}: what the programs say follows")


def _print_running(places: Iterable[Place], service: RunningService) -> None:
    print_line()
    if service.api_url:
        sign_in = "sign in with the key below" if service.api_key else "sign in with a key: notifier keys create"
        _print_place("console", f"{service.api_url}/  ({sign_in})")
    for place in places:
        _print_place(place.name, place.where)


def _print_lines(variables: Iterable[tuple[str, str]], example: str) -> None:
    print_line("\nFor your program, paste into another terminal:\n", "bold")
    for name, value in variables:
        print_line(f"  export {name}={shlex.quote(value)}")
    print_line("\nThen send a message there, and list all messages with their status:\n", "bold")
    print_line(f"  {program_to_type()} {example}")
    print_line(f"  {program_to_type()} search")
    print_line("\nCtrl-C stops everything.\n", "bold")
    sys.stdout.flush()


def _print_place(name: str, where: str) -> None:
    print_parts((f"  {name:<11}", "cyan"), (where, ""))


def _example(settings: Settings, world: LocalWorld) -> str:
    """What can be sent here: an SMS, unless all providers in notifier.toml are for mail."""
    from notifier.domain.statuses import Channel
    from notifier.providers.registry import channel_of

    channels = {channel_of(table) for table in settings.provider_tables()}
    return _SMS_EXAMPLE if world.twilio is not None or Channel.SMS in channels else _MAIL_EXAMPLE


def _hash_key(settings: Settings) -> dict[str, str]:
    """The hash key, for other commands of this user: with another key they would find nobody by address, and would
    not say so."""
    return {"NOTIFIER_HASH_KEY": settings.hash_key.get_secret_value()} if settings.hash_key else {}


def _variables(data_dir: Path, service: RunningService) -> Iterator[tuple[str, str]]:
    # `notifier send` finds the database by the file in that folder.
    if data_dir != default_data_dir().absolute():
        yield "NOTIFIER_DATA_DIR", str(data_dir)
    yield "NOTIFIER_BROKER_URL", service.broker_url
    if service.api_url:
        yield "NOTIFIER_API_URL", service.api_url
    if service.api_key:
        yield "NOTIFIER_API_KEY", service.api_key


def program_to_type() -> str:
    """The script's path, as `make` starts it, if `notifier` alone is not found."""
    script = sys.argv[0]
    return script if script.endswith("/notifier") and not shutil.which("notifier") else "notifier"


def _show_line(line: str, level: str) -> None:
    print_parts((clean(line), _STYLES.get(level, "dim")), stream=sys.stderr)


def _metrics_ports(settings: Settings, programs: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[Place]]:
    """For each program except the API, counting from `NOTIFIER_METRICS_PORT`: its variable, and where it
    listens."""
    from notifier.dev.local import Place
    from notifier.dev.programs import API

    if settings.metrics_port is None:
        return {}, []
    ports = dict(zip((name for name in programs if name not in API), count(settings.metrics_port), strict=False))
    where = ", ".join(f"{name} {port}" for name, port in ports.items())
    own = {name: {"NOTIFIER_METRICS_PORT": str(port)} for name, port in ports.items()}
    return own, [Place("metrics", f"/metrics and /healthz on {settings.metrics_host}: {where}")]
