"""A ledger, a producer's endpoint, and a worker's loop that calls it."""

from __future__ import annotations

import asyncio
import base64
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from aiohttp.abc import AbstractResolver
from sqlalchemy import Engine, text

from notifier.callbacks import CallbackCaller, CallbackPolicy, CallbackSender
from notifier.config.callbacks import CallbackTable
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane, OnUnknown, Outcome, Reason, Status
from notifier.domain.validation import check
from notifier.store.callbacks import CallbackFilter, CallbackRepository, CallbackView
from notifier.store.engine import transaction
from notifier.store.ledger import Ledger
from notifier.store.records import DeliveryResult, NewAttempt, NewNotification
from tests.support.receiver import Receiver
from tests.waiting import patient

SECRETS = ["whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"a", b"b")]


class World:
    """A ledger, an endpoint, and a worker's loop that calls it."""

    def __init__(self, engine: Engine, hooks: Receiver, names: AbstractResolver | None = None) -> None:
        self.engine, self.hooks, self.names = engine, hooks, names
        self.ledger, self.book = Ledger(engine), CallbackRepository(engine)
        self.tables = {
            "shop": self.table(f"http://127.0.0.1:{hooks.port}/hooks", ["sent"]),
            "other": self.table(None, []),
        }
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.runner = asyncio.run_coroutine_threadsafe(self._make(), self.loop).result()

    def table(self, url: str | None, statuses: list[str]) -> CallbackTable:
        return CallbackTable.model_validate({"url": url, "secrets": SECRETS, "statuses": statuses})

    async def _make(self) -> CallbackSender:
        caller = CallbackCaller({"127.0.0.1"}, names=self.names, deadline_seconds=5)
        return CallbackSender(self.book, self.tables, caller, self.loop, chance=lambda: 1.0)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.runner.stop(), self.loop).result(patient(20))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.engine.dispose()

    def accept(self, count: int = 1, producer: str = "shop", **fields: Any) -> list[UUID]:
        rules, news = CallbackPolicy(self.tables, {"127.0.0.1"}), []
        for position in range(count):
            given = {"producer": producer, "to": "ann@example.com", "template": "receipt", **fields}
            message = check(Message(idempotency_key=str(new_id()), **given), Channel.EMAIL, Lane.NORMAL)
            new = NewNotification(message, Channel.EMAIL, Lane.NORMAL, "1", OnUnknown.RESEND, position)
            news.append(replace(new, callback_statuses=rules.told(message)))
        return [answer.id for answer in self.ledger.accept(news)]

    def finish(self, ids: list[UUID], status: Status = Status.SENT, reason: Reason | None = None) -> None:
        claimed = self.ledger.claim(ids, lease_seconds=60)
        started = self.ledger.start_attempts([NewAttempt(one, "smtp") for one in claimed], margin_seconds=1)
        outcome = Outcome.ACCEPTED if status is Status.SENT else Outcome.REJECTED
        self.ledger.finish(
            [
                DeliveryResult(
                    one.id, one.claim, status, reason=reason, number=started[one.id].number, outcome=outcome
                )
                for one in claimed
            ]
        )

    def send(self, count: int = 1, **fields: Any) -> list[UUID]:
        ids = self.accept(count, **fields)
        self.finish(ids)
        return ids

    def fail(self, **fields: Any) -> UUID:
        [found] = self.accept(**fields)
        self.finish([found], Status.FAILED, Reason.INVALID_RECIPIENT)
        return found

    def tick(self) -> int:
        """Do what Beat and a worker do. Returns when nothing is left to call."""
        due = self.book.give_out()
        running = [self.runner.start(ids) for ids in due.values()]
        for one in running:
            one.result(patient(30))
        return sum(map(len, due.values()))

    def callbacks(self, **wanted: Any) -> list[CallbackView]:
        """Callbacks in order of their events."""
        return self.book.search(CallbackFilter(**wanted), limit=1000)[::-1]

    def pass_time(self, span: timedelta = timedelta(0)) -> None:
        """Move time on: everything that waits reaches its due time, and began that much earlier."""
        self.run("UPDATE callbacks SET due_at = now() - interval '1 s', begun_at = begun_at - :span "
                 "WHERE due_at IS NOT NULL", span=span)  # fmt: skip

    def run(self, statement: str, **values: Any) -> None:
        with transaction(self.engine) as connection:
            connection.execute(text(statement), values)
