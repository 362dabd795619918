"""Publishes lines in chunks: bad lines are set aside with their faults, good lines are sent. It is safe to
repeat."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from notifier.cli.message_files import Line
from notifier.client.client import Messages
from notifier.domain.assumed_channel import by_recipient
from notifier.domain.errors import Fault, InvalidMessage
from notifier.domain.statuses import Channel, Lane

_Kind = TypeVar("_Kind", Channel, Lane)

#: Lines that are checked and published together.
CHUNK = 500


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was not published, and why."""

    line: int
    faults: tuple[Fault, ...]

    def as_dict(self) -> dict[str, Any]:
        """As shown by `--errors` and `--json`."""
        return {"line": self.line, "faults": [fault.as_dict() for fault in self.faults]}


@dataclass(slots=True)
class Progress:
    #: False: it stopped before the end of the file.
    complete: bool = False
    read: int = 0
    sent: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class BatchDefaults:
    """Values from the command line for lines that lack them."""

    producer: str
    channel: Channel | None = None
    lane: Lane = Lane.BULK
    #: Other fields of the contract. Context and metadata are merged key by key.
    fields: Mapping[str, Any] = field(default_factory=dict)
    #: Variables in `fields["context"]` that are plain text.
    texts: frozenset[str] = frozenset()


class BatchPublisher:
    """Publishes one file. `progress` is correct at any moment, even after an error or Ctrl-C."""

    def __init__(
        self,
        client: Messages,
        defaults: BatchDefaults,
        on_bad_line: Callable[[BadLine], None],
        typed: Callable[[Channel, object, Mapping[str, Any], Collection[str]], dict[str, Any]],
    ) -> None:
        """`typed` gives plain text the types that a template declares, see `VariableTypes`."""
        self._client = client
        self._defaults = defaults
        self._on_bad_line = on_bad_line
        self._typed = typed
        self._keys = LineKeys(defaults.producer, str(defaults.fields.get("template", "")))
        self.progress = Progress()

    def run(self, lines: Iterable[Line]) -> Iterator[Progress]:
        """Publish all lines. Yields after each chunk.

        Raises:
            PublishFailed: some of the current chunk may have been published; publishing it again sends nothing
                twice.
        """
        waiting = iter(lines)
        while chunk := list(islice(waiting, CHUNK)):
            self._publish_chunk(chunk)
            yield self.progress
        self.progress.complete = True
        yield self.progress

    def _publish_chunk(self, chunk: Sequence[Line]) -> None:
        groups: dict[tuple[Channel, Lane], list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        bad: list[BadLine] = []
        for line in chunk:
            entry = self._completed(line)
            try:
                if line.faults:
                    raise InvalidMessage(line.faults)
                channel, lane = self._queue(entry)
                self._give_types(channel, entry, line)
                groups[channel, lane].append((line.number, entry))
            except InvalidMessage as error:
                bad.append(BadLine(line.number, error.faults))
        self.progress.read += len(chunk)
        for (channel, lane), numbered in groups.items():
            bad += self._send(channel, lane, numbered)
        for found in sorted(bad, key=lambda one: one.line):
            self.progress.failed += 1
            self._on_bad_line(found)

    def _give_types(self, channel: Channel, entry: dict[str, Any], line: Line) -> None:
        own, context = line.entry.get("context"), entry.get("context")
        given = own.keys() if isinstance(own, Mapping) else ()
        texts = line.texts | (self._defaults.texts - set(given))
        if texts and isinstance(context, Mapping):
            entry["context"] = self._typed(channel, entry.get("template"), context, texts)

    def _send(self, channel: Channel, lane: Lane, numbered: list[tuple[int, dict[str, Any]]]) -> list[BadLine]:
        """Send the valid lines. The client checks all of them before it publishes any."""
        bad: dict[int, list[Fault]] = {}
        try:
            entries = [entry for _, entry in numbered]
            self.progress.sent += len(self._client.send_many(entries, channel=channel, lane=lane))
        except InvalidMessage as error:
            bad = _by_position(error.faults)
            good = [entry for position, (_, entry) in enumerate(numbered) if position not in bad]
            if good:
                self.progress.sent += len(self._client.send_many(good, channel=channel, lane=lane))
        return [BadLine(numbered[position][0], tuple(faults)) for position, faults in bad.items()]

    def _completed(self, line: Line) -> dict[str, Any]:
        """The line with the defaults, and with a key that stays the same when the file is published again."""
        entry = {"producer": self._defaults.producer, **self._defaults.fields, **line.entry}
        for name in ("context", "metadata"):
            default, own = self._defaults.fields.get(name), line.entry.get(name)
            if isinstance(default, Mapping) and isinstance(own, Mapping):
                entry[name] = {**default, **own}
        if not line.faults and entry.get("idempotency_key") is None and entry.get("id") is None:
            entry["idempotency_key"] = self._keys.next(line.entry)
        return entry

    def _queue(self, entry: Mapping[str, Any]) -> tuple[Channel, Lane]:
        faults: list[Fault] = []
        wanted = entry.get("channel") or self._defaults.channel or by_recipient(entry.get("to"))
        channel = _choice(wanted, Channel, "channel", faults)
        lane = _choice(entry.get("lane") or self._defaults.lane, Lane, "lane", faults)
        if channel is None or lane is None:
            raise InvalidMessage(faults)
        return channel, lane


class LineKeys:
    """Makes idempotency keys from the contents of lines, so that a file can be published again, whole or in parts.

    Identical lines are counted, because each of them is a separate message.
    """

    def __init__(self, producer: str, template: str) -> None:
        self._start = f"{producer}\0{template}\0"
        # 64 bits of each line. If two lines share them, they only count as identical, in every run.
        self._seen: set[int] = set()
        self._again: dict[int, int] = {}

    def next(self, content: Mapping[str, Any]) -> str:
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
        digest = hashlib.sha256((self._start + canonical).encode())
        short = int.from_bytes(digest.digest()[:8])
        occurrence = 1
        if short in self._seen:
            occurrence = self._again[short] = self._again.get(short, 1) + 1
        self._seen.add(short)
        digest.update(f"\0{occurrence}".encode())
        return f"publish:{digest.hexdigest()}"


def _by_position(faults: Iterable[Fault]) -> dict[int, list[Fault]]:
    """`send_many` puts the entry's position before each field: "3.to" → 3, "to"."""
    found: dict[int, list[Fault]] = defaultdict(list)
    for fault in faults:
        position, _, name = fault.field.partition(".")
        found[int(position)].append(Fault(name, fault.code, fault.problem, fault.fix))
    return found


def _choice(value: Any, kind: type[_Kind], name: str, faults: list[Fault]) -> _Kind | None:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(kind)
        faults.append(Fault(name, "bad_choice", f"is not one of {known}", "Use one of them"))
        return None
