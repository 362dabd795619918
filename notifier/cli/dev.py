"""`notifier up` and `demo`: the whole service on this machine, with no set-up."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from notifier.cli.options import AsJson
from notifier.cli.output import hint, one_line, print_json, print_line, print_table, progress_bar, warn
from notifier.cli.services import program_settings
from notifier.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from notifier.config.settings import Settings
    from notifier.dev.demo import DemoOutcome, DemoReport, Planned
    from notifier.dev.local import LocalWorld, Place
    from notifier.store.search import Story

#: How much longer than its programs `up` has to stop: its servers end after them. Seconds.
SERVERS_SECONDS = 45.0
#: Where `up` has it, if the port is free.
_CONSOLE = "http://127.0.0.1:8080/"
_EXAMPLE = "login_code +15550100123 --context code=042137 --context valid_minutes=10"


def up() -> None:
    """Run the whole service on this machine, and start whatever is not configured.

    Without settings: an embedded PostgreSQL and Valkey, and a mail server and a Twilio that store what they
    receive. The data is kept between runs. Ctrl-C stops everything in order.
    """
    settings = program_settings("up", use_running=False)
    from notifier.config.running_service import RunningService
    from notifier.dev.console_key import console_key
    from notifier.dev.local import Place, announced, local_world
    from notifier.dev.programs import Programs
    from notifier.intake.producers import check_broker, in_words
    from notifier.runtime.shutdown import stop_on_signals
    from notifier.store.schema.upgrade import upgrade

    stop = stop_on_signals(settings.grace_seconds + SERVERS_SECONDS)
    data_dir = settings.data_dir.expanduser().absolute()
    hint(f"starting what is not configured, in {data_dir}")
    with local_world(settings, data_dir, fixed_ports=True) as world:
        database_url = world.environment.get("NOTIFIER_DATABASE_URL") or settings.require("database_url")
        broker_url = world.environment.get("NOTIFIER_BROKER_URL") or settings.require("broker_url")
        check_broker(settings.structure, broker_url)
        upgrade(database_url)
        # Of a database that is ours alone; others' is not ours to make keys for.
        key = console_key(database_url, data_dir) if "NOTIFIER_DATABASE_URL" in world.environment else None
        wanted, api, where = _api_program(settings, world, key)
        own, metrics = _metrics_ports(settings, wanted)
        world.places += [*where, *metrics, Place("producers", in_words(settings.structure, broker_url))]
        # For people to read.
        logs = {"NOTIFIER_LOG_FORMAT": "text"} if settings.log_format == "auto" else {}
        variables, grace = {**world.environment, **logs, **api}, settings.grace_seconds
        programs = Programs(variables, data_dir / "logs", own, wanted, grace_seconds=grace)
        api_url = f"http://127.0.0.1:{api['NOTIFIER_API_PORT']}" if api else None
        service = RunningService(broker_url, api_url, key)
        with announced(data_dir, world.environment, service):
            programs.start()
            _print_running(world.places, programs.pids, data_dir / "logs")
            followers = _follow(programs.logs, stop)
            programs.watch(stop, lambda died, pause: warn(f"{died} ended; it starts again in {pause:g} s"))
            hint("stopping: what is in flight is finished first")
            programs.stop()
            for follower in followers:
                follower.join(timeout=5)
    hint("stopped; the data is kept")


def _print_running(places: Iterable[Place], programs: Iterable[str], logs: Path) -> None:
    print_table(("what", "where"), [(place.name, place.where) for place in places])
    print_line(f"running: {', '.join(programs)}; logs in {logs}")
    print_line("try, in another terminal:")
    print_line(f"  {_program()} send {_EXAMPLE} --wait 10")
    print_line("Ctrl-C stops everything.")
    sys.stdout.flush()


def _program() -> str:
    """What to type: the script's path, as `make` starts it, where `notifier` alone is not found."""
    script = sys.argv[0]
    return script if script.endswith("/notifier") and not shutil.which("notifier") else "notifier"


def _api_program(
    settings: Settings, world: LocalWorld, console_key: str | None
) -> tuple[Mapping[str, tuple[str, ...]], dict[str, str], list[Place]]:
    """All programs with the API if it is installed; its variables, and where it is. A port that is taken is
    replaced, as those of mail and Twilio are."""
    from notifier.dev.local import Place, with_api
    from notifier.dev.machine import is_free
    from notifier.dev.programs import API, PROGRAMS

    if settings.public_url:
        world.environment["NOTIFIER_PUBLIC_URL"] = settings.public_url
    api = with_api(world, settings.api_port if is_free(settings.api_port) else None)
    if not api:
        return PROGRAMS, {}, []
    url = f"http://127.0.0.1:{api['NOTIFIER_API_PORT']}"
    key = console_key or "a key: notifier keys create --scope operate --name you"
    places = [
        Place("console", f"{url}/, in the browser; sign in with {key}"),
        Place("HTTP API", f"{url}, with a key: notifier keys create"),
    ]
    return {**API, **PROGRAMS}, api, places


def _metrics_ports(settings: Settings, programs: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[Place]]:
    """Of each program but the API, from `NOTIFIER_METRICS_PORT` on: its variable, and where it is."""
    from notifier.dev.local import Place
    from notifier.dev.programs import API

    if settings.metrics_port is None:
        return {}, []
    ports = dict(zip((name for name in programs if name not in API), count(settings.metrics_port), strict=False))
    where = ", ".join(f"{name} {port}" for name, port in ports.items())
    own = {name: {"NOTIFIER_METRICS_PORT": str(port)} for name, port in ports.items()}
    return own, [Place("metrics", f"/metrics and /healthz on {settings.metrics_host}: {where}")]


def _follow(logs: dict[str, Path], stop: Event) -> list[Thread]:
    """Show what the programs log from now on, each line with its program."""

    def follow(name: str, path: Path) -> None:
        with path.open("r", encoding="utf-8", errors="replace") as file:
            file.seek(0, 2)
            while True:
                last_round = stop.wait(0.3)
                for line in file:
                    hint(f"{name:<13} {line.rstrip()}")
                if last_round:
                    return

    threads = [Thread(target=follow, args=item, daemon=True) for item in logs.items()]
    for thread in threads:
        thread.start()
    return threads


def demo(
    folder: Annotated[Path | None, Option(help="Use this empty folder and keep it: mails, logs, data.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole service in a temporary folder, send a shop's examples through it, and show the outcome.

    Needs no settings and changes none of yours. Exits 0 only if every message ended as expected.
    """
    from notifier.dev.demo import run_demo

    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty; give an empty folder, or leave --folder out")
    with _scratch(folder) as path, ExitStack() as stack:
        bar: Callable[[str, int], None] | None = None

        def show(done: int, total: int) -> None:
            nonlocal bar
            bar = bar or stack.enter_context(progress_bar(total))
            bar("messages", done)

        report = run_demo(path, say=lambda text: hint(f"· {text}"), progress=show)
    if as_json:
        print_json(_as_json(report))
    else:
        _print_report(report)
        if folder:
            hint(f"kept: mails in {folder / 'mail'}, logs in {folder / 'logs'}")
    raise typer.Exit(0 if report.ok else 1)


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """The given folder, made if it is missing, or a temporary one that goes away."""
    from notifier.dev.machine import make_temporary_folder

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.absolute()
        return
    temporary = make_temporary_folder()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _as_json(report: DemoReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "notifications": [_outcome_json(outcome) for outcome in report.outcomes],
        "rejected": report.rejected,
        "duplicates": report.duplicates,
        "problems": list(report.problems),
        "seconds": round(report.seconds, 2),
    }


def _outcome_json(outcome: DemoOutcome) -> dict[str, Any]:
    found = outcome.story.notification if outcome.story else None
    planned = {name: getattr(outcome.planned, name) for name in ("channel", "template", "locale", "to")}
    reached = {"status": found and found.status, "reason": found and found.reason}
    return {"id": found and str(found.id), **planned, **reached, "attempts": found.attempt_count if found else 0}


def _print_report(report: DemoReport) -> None:
    for problem in report.problems:
        warn(f"✗ {problem}")
    if report.ok:
        print_line(f"everything ended as expected, in {report.seconds:.1f} s", "bold green")
    for outcome in report.outcomes:
        _print_summary_line(outcome)
    print_line(f"  {report.rejected} rejected message (malformed JSON), {report.duplicates} duplicate")
    for outcome in report.outcomes:
        if outcome.planned.is_told and outcome.story:
            _print_story(outcome.planned, outcome.story)
    if report.ok:
        hint(
            f"\nnext: `{_program()} up` runs the same service and keeps it running, with its console at {_CONSOLE}"
        )


def _print_story(planned: Planned, story: Story) -> None:
    from notifier.operations.timeline import timeline

    print_line(f"\n{planned.template} {planned.title}, to {planned.to}", "bold")
    steps = timeline(story)
    for step in steps:
        print_line(f"  +{(step.at - steps[0].at).total_seconds():.3f} s  {one_line(step.text)}")


def _print_summary_line(outcome: DemoOutcome) -> None:
    planned, story = outcome.planned, outcome.story
    status = story.notification.status if story else "missing"
    number = story.notification.attempt_count if story else 0
    attempts = "1 attempt" if number == 1 else f"{number} attempts"
    reason = f", {story.notification.reason}" if story and story.notification.reason else ""
    mark, style = ("✓", "green") if outcome.is_right else ("✗", "bold red")
    print_line(f"  {mark} {status:<9} {planned.template} {planned.title} ({attempts}{reason})", style)
