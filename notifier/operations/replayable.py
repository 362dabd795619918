"""Decides which rejected messages can be published again, in what form, and finds what came of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from notifier.domain.message import Envelope, Message
from notifier.domain.validation import decode, read_message
from notifier.security.body_hash import body_hash
from notifier.store.rejected import EDITED, KeptRejection
from notifier.store.status_lookup import AskedStatus, StatusLookup

if TYPE_CHECKING:  # slow to import, and most commands need none of it
    from notifier.broker.dead_letters import Raw
    from notifier.domain.statuses import Channel, Lane
    from notifier.store.operator_actions import RecordView
    from notifier.store.search import RejectedView


def original(kept: KeptRejection) -> Raw:
    """The message byte for byte, as it came."""
    from notifier.broker.amqp_transport import RAW_PROPERTIES
    from notifier.broker.dead_letters import Raw

    headers = dict(kept.headers)
    # The properties could not be read, so the body is published alone and checked by itself.
    headers.pop(RAW_PROPERTIES, None)
    kind, encoding = headers.pop("content_type", None), headers.pop("content_encoding", None)
    return Raw(
        queue=kept.queue,
        body=kept.body,
        headers=headers,
        content_type=kind if isinstance(kind, str) else None,
        content_encoding=encoding if isinstance(encoding, str) else None,
        broker_user=kept.broker_user,
    )


def edited(kept: KeptRejection, body: bytes) -> Raw:
    """The message with another body, as if from the same queue. Its publisher did not write this body, so it has
    no publisher."""
    from notifier.broker.dead_letters import Raw

    headers = {name: value for name, value in kept.headers.items() if name == "traceparent"}
    return Raw(kept.queue, body, headers, content_type="application/json")


def why_not_replayed(kept: KeptRejection, *, again: bool, over: bool) -> str:
    """Why it cannot be published as it came; empty: it can. Includes the reasons of `why_not_published`."""
    if why := why_not_published(kept, again=again, over=over):
        return why
    if kept.body_size > len(kept.body):
        size = f"only {len(kept.body)} of its {kept.body_size} bytes were kept"
        return f"{size}: it must come from its producer again"
    if _lacks_common_fields(kept):
        return "it is an entry of a batch, kept without the fields that its batch gave it: publish the batch again"
    return ""


def why_not_published(kept: KeptRejection, *, again: bool, over: bool) -> str:
    """Why it cannot be published, whatever its body is. `again`: allow it if it was replayed before. `over`: allow
    it if an interrupted replay may have published an edited copy."""
    if kept.problem is not None:
        return kept.problem
    if pair_of(kept.queue) is None:
        return f"it came through {kept.queue}, which is not a queue of producers"
    by = f" by {kept.replayed_by}" if kept.replayed_by else ""
    if kept.claimed_at is not None and not kept.is_interrupted:
        return f"it is being replayed{by}, since {kept.claimed_at:%Y-%m-%d %H:%M:%S} UTC"
    if kept.replayed_at is not None and not again:
        return f"it was replayed at {kept.replayed_at:%Y-%m-%d %H:%M:%S} UTC{by}"
    if kept.claimed_at is not None and kept.replay_action == EDITED and not over:
        when = f"{kept.claimed_at:%Y-%m-%d %H:%M:%S} UTC"
        return f"the replay of an edited copy{by} at {when} was interrupted, and may have published it: look first"
    return ""


def key_of(body: bytes) -> dict[str, str]:
    """What identifies its notification: its producer with its id or key; empty: nothing does."""
    value = decode(body)
    if not isinstance(value, dict):
        return {}
    found = {name: value.get(name) for name in ("producer", "id", "idempotency_key")}
    return {name: one for name, one in found.items() if isinstance(one, str)}


def changed(before: bytes, after: bytes) -> list[str]:
    """Fields of the contract that have another value. Other fields may have any name, so they are kept out of the
    operator's record."""
    old, new = decode(before), decode(after)
    if not isinstance(old, dict) or not isinstance(new, dict):
        return ["body"]
    names = Message.model_fields.keys() | Envelope.model_fields.keys()
    return sorted(name for name in names if old.get(name) != new.get(name))


def pair_of(queue: str | None) -> tuple[Channel, Lane] | None:
    """What a producers' queue carries. None: it is another queue."""
    from notifier.broker.topology import notify_queue_name, pairs

    return next((pair for pair in pairs() if queue == notify_queue_name(*pair)), None)


def _lacks_common_fields(kept: KeptRejection) -> bool:
    """Whether it is an entry whose producer and template may have been in its batch only."""
    if kept.entry is None:
        return False
    try:
        value = json.loads(kept.body)
    except (ValueError, RecursionError):
        return True
    return not isinstance(value, dict) or not {"producer", "template"} <= value.keys()


def came_of(lookup: StatusLookup, rejected: RejectedView, replay: RecordView | None) -> UUID | None:
    """The notification of the message that was published in its place; None: there is none yet, or it cannot be
    determined.

    `replay` is the operator record of the last replay. Raises `ServiceUnavailable`.
    """
    if not rejected.replayed_at and not rejected.is_interrupted:
        return None
    edit = replay if replay is not None and replay.action == EDITED else None
    key = edit.selection.get("published", {}) if edit else key_of(rejected.body)
    # Its key may be another message's. For an edited copy, nothing is kept that would tell: see below.
    content = None if edit else _content_of(rejected)
    if edit is None and content is None:
        return None
    # Without an id, use the rejected message's own, which no notification has.
    id_ = _uuid(key.get("id")) or rejected.id
    asked = AskedStatus(id_, key.get("producer"), key.get("idempotency_key"), content)
    found = lookup.find([asked]).get(asked)
    if found is None or found.fault is not None or (edit and found.status.accepted_at < edit.at):
        return None
    return found.status.id


def _content_of(rejected: RejectedView) -> bytes | None:
    """The digest of its content; None if it was not a valid message when it was replayed."""
    value, pair = decode(rejected.body), pair_of(rejected.queue)
    if not isinstance(value, dict) or pair is None:
        return None
    # Later its id would be too old.
    then = rejected.replayed_at or rejected.claimed_at or datetime.now(UTC)
    message = read_message(value, *pair, now=then).message
    return body_hash(message) if message else None


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None
