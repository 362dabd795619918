"""Runs the demo: starts servers and programs in a scratch folder, publishes messages, and reports what became of
each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from notifier.bootstrap import Services
from notifier.broker.dead_letters import Raw, RawPublisher
from notifier.broker.topology import notify_queue_name
from notifier.client.client import Client
from notifier.config.settings import Settings, bundled, load_settings
from notifier.dev.demo.arrivals import check_arrivals
from notifier.dev.demo.scenario import MAIL_RULES, MALFORMED, Planned, plan
from notifier.dev.forking import ProgramLauncher
from notifier.dev.local import LocalWorld, local_world, with_api
from notifier.dev.programs import API, PROGRAMS, Programs
from notifier.domain.errors import NotFound, NotifierError, ServiceUnavailable
from notifier.domain.statuses import FINAL_STATUSES, Channel, Lane, Status
from notifier.store.schema.upgrade import upgrade
from notifier.store.search import Story

#: The demo gives up when no message has ended for this long. A busy machine is slow but makes progress. Seconds.
STANDSTILL_SECONDS = 90.0
_SETTLED = FINAL_STATUSES | {Status.UNKNOWN}


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """One planned message and its story; None: it never got into the record."""

    planned: Planned
    story: Story | None

    @property
    def is_right(self) -> bool:
        if self.story is None:
            return False
        found, planned = self.story.notification, self.planned
        return (found.status, found.reason, found.attempt_count) == (
            planned.status,
            planned.reason,
            planned.attempts,
        )


@dataclass(frozen=True, slots=True)
class DemoReport:
    outcomes: tuple[DemoOutcome, ...]
    rejected: int
    duplicates: int
    #: Messages that had not ended when the demo gave up.
    unended: int
    #: Everything that is not as it should be, one line each; empty: all is well.
    problems: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        return not self.problems


def run_demo(folder: Path, *, say: Callable[[str], None], progress: Callable[[int, int], None]) -> DemoReport:
    """Run the demo in an empty folder. `say` is called with each step, `progress` (ended, all) while messages are
    on their way.

    Raises:
        ConfigurationError, ServiceUnavailable: a server cannot be started, or a server or a program ends during
            the demo.
    """
    begun = time.monotonic()
    settings = _own_settings(folder)
    say("starting PostgreSQL, Valkey, a mail server and a local Twilio")
    with ProgramLauncher() as launcher, local_world(settings, folder, mail_rules=MAIL_RULES) as world:
        upgrade(world.environment["NOTIFIER_DATABASE_URL"])
        api = with_api(world)
        programs = Programs(
            {**world.environment, **api},
            folder / "logs",
            programs={**API, **PROGRAMS} if api else PROGRAMS,
            launch=launcher.launch,
        )
        say(f"starting intake, Beat, two workers{' and the HTTP API' if api else ''}")

        def check() -> None:
            world.check_servers()
            if not all(programs.running.values()):
                raise ServiceUnavailable(programs.last_words())

        with programs:
            try:
                return _through(world, say, progress, begun, check)
            except NotifierError:
                # The error may only be a consequence of a program that died.
                check()
                raise


def _own_settings(folder: Path) -> Settings:
    """Settings without the caller's environment: a demo must not touch a real database or send a real SMS."""
    for name in list(os.environ):
        if name.startswith("NOTIFIER_"):
            del os.environ[name]
    os.environ["NOTIFIER_DATA_DIR"] = str(folder)
    os.environ["NOTIFIER_CONFIG"] = str(bundled("notifier.toml"))
    return load_settings()


def _through(
    world: LocalWorld,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
    begun: float,
    check: Callable[[], None],
) -> DemoReport:
    os.environ.update(world.environment)
    services = Services(load_settings(), pool_size=2, application="notifier demo")
    planned = plan(services.renderer, with_receipts="NOTIFIER_PUBLIC_URL" in world.environment)
    say(f"publishing {len(planned)} messages, one of them twice, and one that is malformed")
    ids = _publish(world.environment["NOTIFIER_BROKER_URL"], planned)
    unended = _wait(services, dict(zip(ids, planned, strict=True)), progress, check)
    outcomes = tuple(DemoOutcome(one, _story(services, id_)) for one, id_ in zip(planned, ids, strict=True))
    rejected = len(services.audit.rejected())
    duplicates = sum(outcome.story.duplicates for outcome in outcomes if outcome.story)
    problems = [
        f"{one.planned.template} {one.planned.title} is not {one.planned.status}"
        for one, id_ in zip(outcomes, ids, strict=True)
        if not one.is_right and id_ not in unended
    ]
    if unended:
        # Everything else that is missing is a consequence of this.
        problems.append(
            f"ran out of time: for {STANDSTILL_SECONDS:g} s there was no progress, with {len(unended)} of "
            f"{len(ids)} messages in flight"
        )
    else:
        if (rejected, duplicates) != (1, 1):
            problems.append(f"{rejected} rejected messages and {duplicates} duplicates instead of one of each")
        assert world.mail is not None
        assert world.twilio is not None
        problems += check_arrivals(planned, services.renderer, world.mail, world.twilio)
    services.close()
    return DemoReport(outcomes, rejected, duplicates, len(unended), tuple(problems), time.monotonic() - begun)


def _publish(broker_url: str, planned: Sequence[Planned]) -> list[UUID]:
    with Client(broker_url, producer="shop", timeout_seconds=10) as client:
        ids = [_send(client, one) for one in planned]
        _send(client, planned[0])
    with RawPublisher.connect(broker_url) as publisher:
        publisher.publish(Raw(notify_queue_name(Channel.EMAIL, Lane.NORMAL), MALFORMED))
    return ids


def _send(client: Client, one: Planned) -> UUID:
    handle = client.send(
        one.template,
        one.to,
        channel=one.channel,
        lane=one.lane,
        locale=one.locale,
        context=one.context,
        idempotency_key=one.key,
    )
    return handle.id


def _wait(
    services: Services,
    planned: Mapping[UUID, Planned],
    progress: Callable[[int, int], None],
    check: Callable[[], None],
) -> Collection[UUID]:
    """Wait until every message has ended and the malformed one is recorded, or nothing makes progress any more, or
    `check` raises. Returns the messages that have not ended."""
    waiting, moved_at = set(planned), time.monotonic()
    while time.monotonic() < moved_at + STANDSTILL_SECONDS:
        check()
        ended = {id_ for id_ in waiting if _has_ended(_story(services, id_), planned[id_])}
        if ended:
            waiting, moved_at = waiting - ended, time.monotonic()
        progress(len(planned) - len(waiting), len(planned))
        if not waiting and services.audit.rejected():
            break
        time.sleep(0.1)
    return waiting


def _has_ended(story: Story | None, planned: Planned) -> bool:
    return story is not None and Status(story.notification.status) in {*_SETTLED, planned.status}


def _story(services: Services, id_: UUID) -> Story | None:
    try:
        return services.audit.story(id_)
    except NotFound:
        return None
