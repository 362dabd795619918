"""The scenarios: which actors meet. Each is small: two or three actors, one or two notifications."""

from __future__ import annotations

from collections.abc import Callable

from chaos.explore.schedule import Role, Scenario
from chaos.explore.steps import DATABASE_JUMP, Actor, Option
from chaos.explore.world import JUMP_SECONDS, World
from notifier.domain.statuses import Channel, Lane, OnUnknown, Reason, Status, SuppressionReason
from notifier.intake.batch import Received
from notifier.operations.notifications import Resolution
from notifier.providers.base import Report
from notifier.store.selection import Selection

_LETTERS = "abc"
_OPERATOR = "olga"
_TWO_DAYS = 2.5 * 86_400.0

SetUp = Callable[[World], object]


def _all(*roles: Role) -> tuple[Role, ...]:
    """The roles, with their letters."""
    return tuple(
        Role(name, role.title, role.work, role.ready, role.comes_again)
        for name, role in zip(_LETTERS, roles, strict=False)
    )


def intake(key: str, *, number: int = 1) -> Role:
    """An intake that has received the message with this key."""

    def work(world: World) -> object:
        message = world.message(world.keyed(key), to="ann@example.com", number=number)
        body = message.model_dump_json(exclude_none=True).encode()
        again = Received(body, world.scene.channel, Lane.NORMAL, redelivered=world.comes_again())
        return world.intake().process([again])

    return Role("", "intake", work)


def deliver(*places: int, again: bool = False) -> Role:
    """A worker with a task for these notifications. `again`: another worker had the task before."""

    def work(world: World) -> object:
        ids = [world.scene.ids[each] for each in places]
        return world.deliverer().deliver(ids, is_redelivered=again or world.comes_again())

    return Role("", "worker", work)


def worker() -> Role:
    """A worker that takes the first task that is published."""

    def work(world: World) -> None:
        scene = world.scene
        scene.taken = scene.taken or scene.tasks.pop(0)
        world.run(scene.taken)

    return Role("", "worker", work, lambda world: bool(world.scene.tasks))


def sweep() -> Role:
    """A tick of Beat."""
    return Role("", "sweep", lambda world: world.dispatcher().dispatch_due(), comes_again=False)


def reconcile(*places: int) -> Role:
    """A worker that looks unknown outcomes up."""
    return Role(
        "", "reconcile", lambda world: world.reconciler().reconcile([world.scene.ids[each] for each in places])
    )


def report(status: Status, reason: Reason | None = None, *, place: int = 0) -> Role:
    """A provider that reports on a message; not before it has accepted it."""

    def work(world: World) -> object:
        made = world.scene.books.made[place]
        words = f"{status}: the handset says so"
        new = Report(made.id, words, status, reason)
        space = world.id_space()
        return world.services.receipts.record(
            made.notification, made.attempt, [made.provider], new, id_space=space
        )

    return Role("", f"report {status}", work, lambda world: len(world.scene.books.made) > place)


def cancel(place: int = 0) -> Role:
    """An operator or the producer cancels it."""

    def work(world: World) -> None:
        id_ = world.scene.ids[place]
        result = world.operations.cancel(Selection(ids=(id_,)), operator=_OPERATOR)
        if result.changed:
            world.note_order("cancel", id_)

    return Role("", "cancel", work, comes_again=False)


def retry(place: int = 0) -> Role:
    """An operator retries it."""
    return Role(
        "",
        "retry",
        lambda world: world.operations.retry(Selection(ids=(world.scene.ids[place],)), operator=_OPERATOR),
        comes_again=False,
    )


def resolve(resolution: Resolution, place: int = 0) -> Role:
    """An operator resolves its unknown outcome."""
    return Role(
        "",
        f"resolve {resolution}",
        lambda world: world.operations.resolve(
            Selection(ids=(world.scene.ids[place],)), resolution, operator=_OPERATOR
        ),
        comes_again=False,
    )


def suppress(place: int = 0) -> Role:
    """Somebody suppresses its recipient."""

    def work(world: World) -> None:
        id_ = world.scene.ids[place]
        world.services.suppressions.add(
            channel=world.scene.channel,
            address=world.recipients[id_],
            reason=SuppressionReason.MANUAL,
            source=f"operator:{_OPERATOR}",
        )
        world.note_order("suppress", id_)

    return Role("", "suppress", work, comes_again=False)


def retain() -> Role:
    """The nightly retention."""
    return Role("", "retention", lambda world: world.services.retention_job.run(), comes_again=False)


# What happened before.


def accepted(count: int = 1, *, hold: bool | None = None) -> SetUp:
    """This many queued notifications."""
    policy = None if hold is None else OnUnknown.HOLD if hold else OnUnknown.RESEND
    return lambda world: [world.accept(on_unknown=policy) for _ in range(count)]


def twins(world: World) -> None:
    """Two notifications with the same text to one number that nobody else has."""
    number = world.number()
    for _ in range(2):
        world.accept(to=f"+1555{number:07d}", number=number)


def then(set_up: SetUp, *answers: Option) -> SetUp:
    """Delivered, with these answers of the provider, one for each call."""

    def work(world: World) -> None:
        set_up(world)
        world.scene.script += answers
        world.deliverer().deliver(world.scene.ids)

    return work


def unheard(set_up: SetUp) -> SetUp:
    """Claimed twice by workers that died before they learned of it. The first lease that ends counts as a death,
    whoever held it."""

    def work(world: World) -> None:
        set_up(world)
        scene = world.scene
        for _ in range(2):
            actor = Actor("s", "worker", lambda: world.deliverer().deliver(scene.ids, is_redelivered=True))
            world.stage.enter(actor)
            world.stage.go(actor, Option.DIES_AFTER)
            world.clock.jump(JUMP_SECONDS)
            world.dispatcher().dispatch_due()
        scene.deaths = 1

    return work


def later(set_up: SetUp, seconds: float) -> SetUp:
    """The same, this many seconds later."""

    def work(world: World) -> None:
        set_up(world)
        world.clock.jump(seconds)

    return work


def old(set_up: SetUp) -> SetUp:
    """Old enough for retention to delete."""

    def work(world: World) -> None:
        # Retention walks through everything that exists.
        world.database.clear()
        set_up(world)
        world.clock.jump(_TWO_DAYS)
        world.scene.may_be_gone = True

    return work


_ENDS = frozenset({Option.NOT_DONE, Option.LOST, Option.DIES, Option.DIES_AFTER})
_SMS = Channel.SMS

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("deliver", _all(deliver(0)), accepted()),
    Scenario("deliver-deliver", _all(deliver(0), deliver(0)), accepted()),
    Scenario("again-again", _all(deliver(0, again=True), deliver(0, again=True)), accepted()),
    Scenario("deliver-again", _all(deliver(0), deliver(0, again=True), sweep()), accepted()),
    # Only connections to the database fail. Soon complete, because there is little else to try.
    Scenario(
        "deliver-unanswered",
        _all(deliver(0), deliver(0)),
        accepted(),
        faults=frozenset({Option.NOT_DONE, Option.LOST}),
        jumps=(),
    ),
    Scenario("deliver-unheard", _all(worker(), sweep()), unheard(accepted())),
    Scenario("deliver-sweep", _all(deliver(0), sweep()), accepted()),
    Scenario("deliver-sweep-worker", _all(deliver(0), sweep(), worker()), later(accepted(), 130)),
    Scenario("sms-deliver-sweep", _all(deliver(0), sweep(), worker()), accepted(), _SMS),
    # Only the database's time goes wrong. Soon complete, because there is little else to try.
    Scenario(
        "sms-late",
        _all(deliver(0), sweep(), worker()),
        accepted(),
        _SMS,
        faults=frozenset(),
        jumps=(DATABASE_JUMP,),
    ),
    Scenario(
        "sms-again-late",
        _all(deliver(0, again=True), sweep(), worker()),
        accepted(),
        _SMS,
        faults=frozenset(),
        jumps=(DATABASE_JUMP,),
    ),
    Scenario("batches", _all(deliver(0, 1), deliver(1, 0), sweep()), accepted(2)),
    Scenario("sms-batches", _all(deliver(0, 1), deliver(1, 0)), accepted(2), _SMS),
    Scenario("sweep-sweep", _all(sweep(), sweep(), worker()), later(accepted(2), 130)),
    Scenario("failover", _all(deliver(0), sweep()), accepted(), providers=2),
    Scenario("sms-failover", _all(deliver(0), sweep()), accepted(), _SMS, providers=2),
    Scenario("deliver-report", _all(deliver(0), report(Status.DELIVERED)), accepted()),
    Scenario(
        "deliver-bounce", _all(deliver(0), report(Status.UNDELIVERED, Reason.UNREACHABLE_RECIPIENT)), accepted()
    ),
    Scenario("sms-deliver-report", _all(deliver(0), report(Status.DELIVERED), sweep()), accepted(), _SMS),
    Scenario("sms-reports", _all(report(Status.SENT), report(Status.DELIVERED)), then(accepted()), _SMS),
    Scenario("deliver-cancel", _all(deliver(0), cancel(), sweep()), accepted()),
    Scenario("cancel-report", _all(cancel(), report(Status.DELIVERED)), then(accepted(), Option.TAKEN), _SMS),
    Scenario("deliver-retry", _all(deliver(0), retry(), sweep()), accepted()),
    Scenario("retry-sweep", _all(retry(), sweep(), worker()), then(accepted(), Option.REJECTED)),
    Scenario("retry-retry", _all(retry(), retry()), then(accepted(), Option.REJECTED)),
    Scenario(
        "sms-retry-report", _all(retry(), report(Status.DELIVERED), worker()), then(accepted(), Option.TAKEN), _SMS
    ),
    Scenario("deliver-suppress", _all(deliver(0), suppress(), sweep()), accepted()),
    Scenario("sms-reconcile-reconcile", _all(reconcile(0), reconcile(0)), then(accepted(), Option.TAKEN), _SMS),
    Scenario("sms-reconcile-missing", _all(reconcile(0), reconcile(0)), then(accepted(), Option.UNKNOWN), _SMS),
    Scenario(
        "sms-reconcile-report", _all(reconcile(0), report(Status.DELIVERED)), then(accepted(), Option.TAKEN), _SMS
    ),
    Scenario(
        "sms-resend-reconcile-report",
        _all(reconcile(0), report(Status.DELIVERED), sweep()),
        then(accepted(hold=False), Option.TAKEN),
        _SMS,
    ),
    Scenario(
        "mail-reconcile-resolve", _all(reconcile(0), resolve(Resolution.SENT)), then(accepted(), Option.UNKNOWN)
    ),
    Scenario(
        "sms-reconcile-resolve",
        _all(reconcile(0), resolve(Resolution.RESEND)),
        then(accepted(), Option.UNKNOWN),
        _SMS,
    ),
    Scenario("sms-twins", _all(reconcile(0), reconcile(1)), then(twins, Option.TAKEN, Option.UNKNOWN), _SMS),
    Scenario("sms-twins-deliver", _all(deliver(0), deliver(1), reconcile(0)), twins, _SMS),
    Scenario(
        "sms-twins-report",
        _all(reconcile(0), reconcile(1), report(Status.DELIVERED)),
        then(twins, Option.TAKEN, Option.TAKEN),
        _SMS,
    ),
    Scenario(
        "retention-report", _all(retain(), report(Status.DELIVERED)), old(then(accepted())), _SMS, faults=_ENDS
    ),
    Scenario("accept-accept", _all(intake("k"), intake("k"), worker()), lambda _: None),
    Scenario("accept-conflict", _all(intake("k"), intake("k", number=2)), lambda _: None),
)
