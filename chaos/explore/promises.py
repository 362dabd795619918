"""The promises: what must hold when everything has come to rest, whatever happened before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID

from chaos.explore.provider import Books
from notifier.domain.statuses import Outcome, Reason, Status, may_follow
from notifier.store.ledger import MAX_CRASHES

if TYPE_CHECKING:
    from chaos.explore.world import Scene, World

_READ = """
SELECT n.id, n.status, n.reason, n.detail, n.due_at, n.on_unknown, n.crash_count, n.callback_statuses,
  n.provider_message_id, n.provider,
  (SELECT json_agg(a ORDER BY a.number) FROM (
    SELECT number, provider, outcome, reason, detail, provider_message_id, finished_at FROM attempts
    WHERE notification_id = n.id) AS a) AS attempts,
  (SELECT json_agg(e ORDER BY e.id) FROM (
    SELECT id, kind, status, reason, attempt, detail FROM events WHERE notification_id = n.id) AS e) AS events,
  (SELECT json_agg(m) FROM (
    SELECT id_space, provider_message_id, attempt, proof FROM provider_messages WHERE notification_id = n.id) AS m)
    AS messages,
  (SELECT json_agg(c.status ORDER BY c.sequence) FROM callbacks AS c WHERE c.notification_id = n.id) AS callbacks
FROM notifications AS n WHERE n.id = ANY(%s) ORDER BY n.id
"""
_LEFT = " UNION ALL ".join(
    f"SELECT '{table}' AS name, count(*) FROM {table} WHERE {key} = ANY(%(ids)s)"
    for key, tables in (
        ("id", ("messages", "states")),
        ("notification_id", ("attempts", "events", "provider_messages", "callbacks", "idempotency_keys")),
    )
    for table in tables
)
_STOPPED = (Status.FAILED, Status.EXPIRED, Status.CANCELLED, Status.SUPPRESSED)


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that was not kept."""

    promise: str
    detail: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.detail}"


def check(world: World) -> list[Broken]:
    """Compare the scene's record with what really happened."""
    scene = world.scene
    rows = world.database.observer.execute(_READ, [scene.ids]).fetchall()
    broken = []
    if scene.is_restless:
        broken.append(Broken("it comes to rest", ", ".join(row["status"] for row in rows)))
    found = {row["id"] for row in rows}
    if scene.may_be_gone:
        broken += _left_behind(world, [id_ for id_ in scene.ids if id_ not in found])
    else:
        broken += [Broken("nothing is lost", str(id_)) for id_ in scene.ids if id_ not in found]
    for row in rows:
        for name in ("attempts", "events", "messages", "callbacks"):
            row[name] = row[name] or []
        broken += _of_one(scene, row)
    return broken + _messages(rows) + _orders(scene)


def _left_behind(world: World, gone: list[UUID]) -> list[Broken]:
    """Nothing is left of what was deleted."""
    if not gone:
        return []
    counts = world.database.observer.execute(_LEFT, {"ids": gone}).fetchall()
    return [
        Broken("what is deleted is gone", f"{row['count']} in {row['name']}") for row in counts if row["count"]
    ]


def _of_one(scene: Scene, row: dict[str, Any]) -> list[Broken]:
    """Promises about one notification."""
    return [
        Broken(promise, f"{detail} [{row['status']}, {row['reason']}: {row['detail']}]")
        for promise, detail in (
            *_state(row),
            *_calls(scene.books, row),
            *_attempts(scene, row),
            *_crashes(scene, row),
            *_story(row),
        )
    ]


Found = list[tuple[str, str]]


def _state(row: dict[str, Any]) -> Found:
    if row["due_at"] is not None:
        return [("it comes to rest", "something is still due")]
    if row["status"] == Status.UNKNOWN:
        held = any(event["kind"] == "held" for event in row["events"])
        return [] if held else [("nothing is lost", "unknown, and nothing says that it is held")]
    if row["status"] in (Status.SENT, Status.DELIVERED, Status.UNDELIVERED, *_STOPPED):
        return []
    return [("nothing is lost", "it rests without having ended")]


def _calls(books: Books, row: dict[str, Any]) -> Found:
    calls = Counter((call.attempt, call.provider) for call in books.calls if call.notification == row["id"])
    recorded = {(attempt["number"], attempt["provider"]) for attempt in row["attempts"]}
    found = [("every call is recorded", f"{call}") for call in calls if call not in recorded]
    found += [("an attempt is one call", f"{call} {times} times") for call, times in calls.items() if times > 1]
    made = sum(made.notification == row["id"] for made in books.made)
    unknown = sum(attempt["outcome"] == Outcome.UNKNOWN for attempt in row["attempts"])
    ordered = sum(event["kind"] == "operator" and event["detail"].startswith(("retried", "resolved"))
                  for event in row["events"])  # fmt: skip
    allowed = 1 + ordered + (unknown if row["on_unknown"] == "resend" else 0)
    if made > allowed:
        found.append(("nothing is sent twice unrecorded", f"{made} messages, {unknown} attempts unknown"))
    return found


def _attempts(scene: Scene, row: dict[str, Any]) -> Found:
    books, found = scene.books, []
    called = {call.attempt for call in books.calls if call.notification == row["id"]}
    for attempt in row["attempts"]:
        number, outcome = attempt["number"], attempt["outcome"]
        if outcome is None:
            found.append(("no attempt is left open", f"attempt {number}"))
            continue
        made = [made for made in books.made if made.notification == row["id"] and made.attempt == number]
        if number not in called:
            if not _says_not_called(attempt, scene):
                found.append(("what was not called is not recorded as called", f"attempt {number}: {outcome}"))
        elif outcome == Outcome.ACCEPTED and not made:
            proofs = {message["proof"] for message in row["messages"] if message["attempt"] == number}
            if proofs != {"look_up"}:
                found.append(("what was accepted was taken", f"attempt {number}"))
        elif outcome not in (Outcome.ACCEPTED, Outcome.UNKNOWN) and made:
            found.append(("what was taken is not called refused", f"attempt {number}: {outcome}"))
    return found


def _says_not_called(attempt: dict[str, Any], scene: Scene) -> bool:
    """Whether the record is right about an attempt without a call. It must say that there was no call. If the
    process died, or stood still until its lease was over, nobody can tell, and `unknown` is right."""
    if attempt["outcome"] == Outcome.UNKNOWN:
        return scene.deaths + scene.jumps > 0
    return "not called" in (attempt["detail"] or "")


def _crashes(scene: Scene, row: dict[str, Any]) -> Found:
    # When a clock jumps, a process that stands still at that moment has lost its lease.
    possible = scene.deaths + scene.jumps
    found: Found = []
    if row["crash_count"] > possible:
        found.append(("no worker counts as dead that lives", f"{row['crash_count']} counted, {possible} happened"))
    words = row["detail"] or ""
    if row["status"] == Status.FAILED and "went away" in words and possible < MAX_CRASHES:
        found.append(("nothing fails because of deaths that never were", words))
    return found


def _story(row: dict[str, Any]) -> Found:
    told = [event for event in row["events"] if event["status"] is not None]
    statuses = [Status(event["status"]) for event in told]
    found: Found = []
    if not told or row["events"][0]["kind"] != "accepted":
        found.append(("the story explains the state", "it does not begin with its acceptance"))
        return found
    for old, new in pairwise(statuses):
        if not may_follow(old, new):
            found.append(("statuses go by the table", f"{old} → {new}"))
    if statuses[-1] != row["status"] or (told[-1]["reason"] or None) != row["reason"]:
        found.append(("the story explains the state", f"it ends with {statuses[-1]}, {told[-1]['reason']}"))
    wanted = [str(status) for status in statuses if status in (row["callback_statuses"] or ())]
    if sorted(wanted) != sorted(row["callbacks"]):
        found.append(("every status that was asked for is told", f"{wanted}, and told {row['callbacks']}"))
    return found + _explained(row)


def _explained(row: dict[str, Any]) -> Found:
    accepted = any(attempt["outcome"] == Outcome.ACCEPTED for attempt in row["attempts"])
    by_operator = row["reason"] == Reason.OPERATOR
    if row["status"] in (Status.SENT, Status.DELIVERED, Status.UNDELIVERED) and not (accepted or by_operator):
        return [("the story explains the state", "sent, and no attempt was accepted")]
    if row["status"] in _STOPPED and row["reason"] is None:
        return [("the story explains the state", "stopped without a reason")]
    return []


def _messages(rows: list[dict[str, Any]]) -> list[Broken]:
    """Each message of a provider belongs to one attempt."""
    held = Counter(
        attempt["provider_message_id"]
        for row in rows
        for attempt in row["attempts"]
        if attempt["provider_message_id"]
    )
    return [Broken("one message, one attempt", message) for message, times in held.items() if times > 1]


def _orders(scene: Scene) -> list[Broken]:
    """If somebody was told that an action is done, it holds for attempts that begin afterwards."""
    found = []
    for what, id_, at in scene.ordered:
        late = [call for call in scene.books.calls if call.notification == id_ and call.decided > at]
        if late:
            found.append(Broken("what was stopped is not sent", f"{what}, and called afterwards"))
    return found
