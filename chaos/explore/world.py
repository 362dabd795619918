"""The service in one process: everything that its programs build, on the explorer's database and clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from uuid import UUID

import notifier.worker.run  # noqa: F401 - all of it is there before its clocks are changed
from chaos.explore.clock import Clock, DrainedLoop, stand_in_for_time
from chaos.explore.database import Database
from chaos.explore.provider import Books, Mailer, Texter
from chaos.explore.steps import Died, Kind, Option, Stage, Step, current
from notifier.bootstrap import Services
from notifier.config.limits import Retention
from notifier.config.settings import Settings
from notifier.config.structure import Sender, Structure
from notifier.delivery import Deliverer, Reconciler
from notifier.delivery.delivery import Delivery
from notifier.delivery.prepare import Composer
from notifier.delivery.provider_calls import ProviderCaller
from notifier.delivery.rate_limiter import RateLimiter
from notifier.delivery.results import Results
from notifier.delivery.sweep import Dispatcher
from notifier.domain.errors import SendError
from notifier.domain.message import Message
from notifier.domain.routing import Candidate, Route
from notifier.domain.statuses import Channel, Lane, OnUnknown, Status
from notifier.domain.validation import check
from notifier.intake import Intake
from notifier.intake.producers import Producers
from notifier.operations.notifications import Operations
from notifier.operations.retention import RetentionJob
from notifier.providers.base import Provider, Receipt
from notifier.store.clock import clock_of
from notifier.store.operator_actions import OperatorActions
from notifier.store.records import NewNotification
from notifier.store.retention import RetentionRepository
from notifier.store.stuck import Lateness

_TEMPLATES = Path(__file__).parent.parent / "templates"
PRODUCER = "shop"
TEMPLATE = {Channel.EMAIL: "notice", Channel.SMS: "code"}
#: Statuses of which the producer asked to be notified.
TOLD = (Status.SENT, Status.DELIVERED, Status.UNDELIVERED, Status.FAILED, Status.EXPIRED, Status.CANCELLED,
        Status.SUPPRESSED)  # fmt: skip
#: Longer than a lease, and than any pause before something is dispatched again. Seconds.
JUMP_SECONDS = 200.0


class AllWell:
    """Replaces `CircuitBreaker`: every provider may be called. The breaker's statements are advice, and part of no
    race."""

    def __init__(self, names: Mapping[Channel, tuple[str, ...]]) -> None:
        self._names = names

    def routes(self, channel: Channel, candidates: Sequence[Candidate]) -> list[Route]:
        return [Route(self._names[channel]) for _ in candidates]

    def settled(self, delivery: Delivery) -> Receipt | SendError | None:
        return delivery.answer

    def note(self, deliveries: Sequence[Delivery]) -> None:
        """Does nothing."""


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    ids: tuple[UUID, ...] = ()
    #: What is done again because its process died or failed; None: identified by name and ids.
    work: Callable[[World], object] | None = None


@dataclass(slots=True)
class Scene:
    """The notifications, actors and results of one schedule."""

    channel: Channel
    ids: list[UUID] = field(default_factory=list)
    books: Books = field(default_factory=Books)
    #: Answers of providers while the scene is being set up.
    script: list[Option] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    #: Processes that died, and times when clocks jumped while an actor was at work.
    deaths: int = 0
    jumps: int = 0
    #: Actions that somebody was told are done: the action, the notification, and the number of steps before.
    ordered: list[tuple[str, UUID, int]] = field(default_factory=list)
    #: The actors have finished, and everything comes to rest.
    is_resting: bool = False
    #: Notifications may be gone from the record, because retention had its turn.
    may_be_gone: bool = False
    #: The task that an actor which is a worker has taken.
    taken: Task | None = None
    #: The task that the worker which brings everything to rest has in hand.
    in_hand: Task | None = None
    #: It did not come to rest.
    is_restless: bool = False


class World:
    """Made once for a process of the explorer; each schedule has its own scene."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.clock = clock
        self.stage: Stage = database.stage
        structure = Structure(senders={"default": Sender(email="Shop <shop@example.com>", sms="+15550100001")})
        settings = Settings(_secrets_dir=None, _env_file=None, templates=_TEMPLATES)
        self.settings = settings.model_copy(update={"structure": structure})
        self.services = Services(self.settings)
        self.services.__dict__["engine"] = database.engine
        self.services.__dict__["retention_job"] = self._keeper()
        operator_actions = OperatorActions(database.engine, self.services.hash_key)
        self.operations = Operations(operator_actions, Lateness(database.engine))
        self.names = {Channel.EMAIL: ("relay", "second"), Channel.SMS: ("texter", "other")}
        self.limiter = RateLimiter(self.services.rates, self.settings)
        self.scene = Scene(Channel.EMAIL)
        self._scenes = 0
        self.routes: Mapping[Channel, tuple[str, ...]] = {}
        self._numbers = count()
        #: Notification → its recipient.
        self.recipients: dict[UUID, str] = {}
        stand_in_for_time(clock, self._sleep)

    def begin(self, channel: Channel, *, providers: int = 1) -> Scene:
        """Begin a new scene. What earlier scenes left is at rest, and has nothing to do with it."""
        self.scene = Scene(channel)
        self._scenes += 1
        self.recipients.clear()
        self.routes = {each: names[:providers] for each, names in self.names.items()}
        self.clock.reset()
        # The database's clock went back while ours did not; otherwise ids would be as old as the last scene.
        clock_of(self.database.engine).expect_another()
        self.stage.begin()
        self.database.begin()
        random.seed(7)
        return self.scene

    def accept(
        self, *, to: str | None = None, on_unknown: OnUnknown | None = None, number: int | None = None
    ) -> UUID:
        """A queued notification whose task somebody has already taken."""
        channel = self.scene.channel
        serial = self.number()
        message = check(self.message(f"k{serial}", to=to, number=number), channel, Lane.NORMAL)
        policy = on_unknown or (OnUnknown.HOLD if channel is Channel.SMS else OnUnknown.RESEND)
        new = NewNotification(message, channel, Lane.NORMAL, "v1", policy, 0, callback_statuses=TOLD)
        (answer,) = self.services.ledger.accept([new])
        self.scene.ids.append(answer.id)
        self.recipients[answer.id] = message.to
        return answer.id

    def number(self) -> int:
        """A number that nobody has had."""
        return next(self._numbers) % 10**7

    def keyed(self, key: str) -> str:
        return f"{key}-{self._scenes}"

    def intake(self) -> Intake:
        """The intake."""
        scene = self.scene

        def publish(_channel: Channel, _lane: Lane, ids: Sequence[UUID]) -> None:
            scene.ids += [id_ for id_ in ids if id_ not in scene.ids]
            self.effect("publish deliver", lambda: scene.tasks.append(Task("deliver", tuple(ids))))

        services, structure = self.services, self.settings.structure
        return Intake(services.ledger, services.renderer, structure, publish, producers=Producers(structure))

    def comes_again(self) -> bool:
        """Whether the broker delivers the task again."""
        return self.scene.is_resting

    def id_space(self) -> str | None:
        """The id space of this scene's providers."""
        return Texter.id_space if self.scene.channel is Channel.SMS else Mailer.id_space

    def note_order(self, what: str, id_: UUID) -> None:
        """Note that somebody was told that this is done; it holds from this step on."""
        self.scene.ordered.append((what, id_, self.stage.moves))

    def message(self, key: str, *, to: str | None = None, number: int | None = None) -> Message:
        """A message from a producer."""
        channel, serial = self.scene.channel, self.number()
        address = f"a{serial}@example.com" if channel is Channel.EMAIL else f"+1555{serial:07d}"
        return Message(
            idempotency_key=key,
            producer=PRODUCER,
            to=to or address,
            template=TEMPLATE[channel],
            context={"number": serial if number is None else number},
        )

    def deliverer(self) -> Deliverer:
        """A deliverer with its own event loop, as in a separate worker process."""
        services = self.services
        providers, deadline = self.providers(), self.settings.call_deadline_seconds
        return Deliverer(
            services.ledger,
            self._composer(),
            AllWell(self.routes),  # type: ignore[arg-type]
            ProviderCaller(DrainedLoop(self.clock), providers, self.limiter, slots=10, deadline_seconds=deadline),
            Results(self.settings, providers, services.hash_key),
            self.settings,
        )

    def reconciler(self) -> Reconciler:
        """A worker's reconciler."""
        loop = DrainedLoop(self.clock)
        return Reconciler(self.services.ledger, self._composer(), self.providers(), self.settings, loop)

    def _composer(self) -> Composer:
        services = self.services
        return Composer(services.renderer, self.settings, services.hash_key, services.tokens, services.attachments)

    def dispatcher(self) -> Dispatcher:
        """A Beat's dispatcher."""
        return Dispatcher(self.services.ledger, self._publish("deliver"), self._publish("reconcile"))

    def providers(self) -> dict[str, Provider]:
        """The providers of this scene's channel."""
        kind = Texter if self.scene.channel is Channel.SMS else Mailer
        names = self.routes[self.scene.channel]
        scene = self.scene
        return {name: kind(name, scene.channel, self.stage, scene.books, scene.script) for name in names}

    def run(self, task: Task) -> None:
        if task.work is not None:
            task.work(self)
        elif task.name == "deliver":
            self.deliverer().deliver(task.ids)
        else:
            self.reconciler().reconcile(task.ids)

    def _publish(self, name: str) -> Callable[[Channel, Lane, Sequence[UUID]], None]:
        def publish(_channel: Channel, _lane: Lane, ids: Sequence[UUID]) -> None:
            wanted = tuple(ids)
            self.scene.ids += [id_ for id_ in ids if id_ not in self.scene.ids]
            self.effect(f"publish {name}", lambda: self.scene.tasks.append(Task(name, wanted)))

        return publish

    def effect(self, label: str, work: Callable[[], None]) -> None:
        """Publish a task to the broker, as a step."""
        option = Option.DONE
        if current() is not None:
            option = self.stage.step(Step(Kind.PUBLISH, label, writes=frozenset({"tasks"})))
        if option in (Option.DONE, Option.LOST, Option.DIES_AFTER):
            work()
        if option.is_death:
            raise Died
        if option is not Option.DONE:
            raise ConnectionError("the broker is gone")

    def _sleep(self, seconds: float) -> None:
        if current() is not None and self.stage.step(Step(Kind.SLEEP, "sleep")).is_death:
            raise Died
        self.clock.jump(seconds)

    def _keeper(self) -> RetentionJob:
        # Only one channel is deleted in pages; no month is dropped.
        tables = {Channel.SMS: Retention(redact_after_days=None, drop_after_days=1), Channel.EMAIL: Retention()}
        return RetentionJob(RetentionRepository(self.database.engine), tables)
