"""Two texts with the same words to the same number, of which the provider accepts one: which notification owns the
message?"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Engine, text

from notifier.config.settings import Settings
from notifier.config.structure import Sender, Structure
from notifier.delivery import Reconciler
from notifier.delivery.prepare import Composer
from notifier.dev.twilio_server import SmsMessage, TwilioRule, TwilioServer
from notifier.domain.errors import OutcomeUnknown
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane, OnUnknown, Outcome, Reason, Status
from notifier.domain.validation import check
from notifier.providers.base import Outgoing, Receipt
from notifier.providers.twilio.options import TwilioOptions
from notifier.providers.twilio.provider import TwilioProvider
from notifier.rendering import Renderer
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import Tokens
from notifier.store.attachments import AttachmentRepository
from notifier.store.engine import transaction
from notifier.store.records import DeliveryResult, NewNotification, NotificationToSend
from tests.support.receipts import Texts
from tests.support.templates import write_templates
from tests.waiting import patient

SENDER, CODE = "+15550100100", "4711"
_T = TypeVar("_T")


class Fate(StrEnum):
    """What happens to a call."""

    ANSWERED = "taken, the answer written at once"
    LATE = "taken, the answer written while others are looked up"
    LOST = "taken, the answer lost"
    KILLED_AFTER = "taken, the worker killed before it wrote the answer"
    REFUSED = "not taken, answered 500"
    KILLED_BEFORE = "not taken, the worker killed before its call"

    @property
    def is_taken(self) -> bool:
        return self in (Fate.ANSWERED, Fate.LATE, Fate.LOST, Fate.KILLED_AFTER)


TAKEN = [fate for fate in Fate if fate.is_taken]
NOT_TAKEN = [fate for fate in Fate if not fate.is_taken]


@dataclass(slots=True)
class One:
    """One of the texts."""

    to: str
    fate: Fate
    claim: NotificationToSend | None = None
    #: The provider's answer.
    receipt: Receipt | None = None

    @property
    def id(self) -> UUID:
        assert self.claim is not None
        return self.claim.id


@dataclass
class EqualTexts:
    """The record, the provider, and everything that connects a message to its notification."""

    engine: Engine
    server: TwilioServer
    loop: asyncio.AbstractEventLoop
    folder: Path
    rng: Random
    texts: Texts = field(init=False)

    def __post_init__(self) -> None:
        self.texts = Texts(self.engine)
        options = TwilioOptions(
            account_sid=self.server.account_sid,
            auth_token=self.server.auth_token,
            api_base=self.server.url,
            # Nobody listens there: callbacks are read from the messages, and reported when the test wants.
            public_url="http://127.0.0.1:9",
        )
        self.provider = TwilioProvider("twilio", options)
        self.settings = Settings().model_copy(
            update={"structure": Structure(senders={"default": Sender(sms=SENDER)})}
        )
        key = HashKey()
        self.composer = Composer(
            Renderer(write_templates(self.folder / "templates")),
            self.settings,
            key,
            Tokens(key),
            AttachmentRepository(self.engine),
        )

    def close(self) -> None:
        self.run(self.provider.close())

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=patient(60))

    def send(self, ones: Sequence[One], policies: Sequence[OnUnknown] = (OnUnknown.HOLD,)) -> None:
        """Let each text meet its fate. Texts held by dead workers are unknown by now."""
        news = [
            NewNotification(
                check(
                    Message(id=new_id(), producer="shop", to=one.to, template="code", context={"code": CODE}),
                    Channel.SMS,
                    Lane.URGENT,
                ),
                Channel.SMS,
                Lane.URGENT,
                "v1",
                self.rng.choice(policies),
                position,
            )
            for position, one in enumerate(ones)
        ]
        ids = [answer.id for answer in self.texts.ledger.accept(news)]
        claims = {claim.id: claim for claim in self.texts.ledger.claim(ids, lease_seconds=60)}
        self.texts.attempt(list(claims.values()))
        for one, id_ in zip(ones, ids, strict=True):
            one.claim = claims[id_]
        self.run(self._call_all(ones))
        self.texts.ledger.finish([result for one in ones if (result := self._result(one)) is not None])
        self._pass_time([one.id for one in ones if one.fate is not Fate.LATE])

    async def _call_all(self, ones: Iterable[One]) -> None:
        turns = asyncio.Semaphore(16)
        by_number: dict[str, list[One]] = {}
        for one in ones:
            by_number.setdefault(one.to, []).append(one)

        async def call_in_turn(same: list[One]) -> None:
            async with turns:
                for one in same:
                    await self._call(one)

        await asyncio.gather(*map(call_in_turn, by_number.values()))

    async def _call(self, one: One) -> None:
        if one.fate is Fate.KILLED_BEFORE:
            return
        if one.fate is Fate.REFUSED:
            self.server.faults.add(TwilioRule(one.to, status=500, times=1))
        outgoing = Outgoing(one.id, 1, one.to, SENDER, f"Your code is {CODE}.")
        try:
            one.receipt = await self.provider.send(outgoing, deadline_seconds=30)
        except OutcomeUnknown:
            assert one.fate is Fate.REFUSED

    def _result(self, one: One) -> DeliveryResult | None:
        assert one.claim is not None
        match one.fate:
            case Fate.ANSWERED:
                return self.answer_of(one)
            case Fate.LOST | Fate.REFUSED:
                return DeliveryResult(
                    one.id,
                    one.claim.claim,
                    Status.UNKNOWN,
                    reason=Reason.OUTCOME_UNKNOWN,
                    number=1,
                    outcome=Outcome.UNKNOWN,
                    due_in_seconds=30,
                )
        return None

    def answer_of(self, one: One) -> DeliveryResult:
        """The worker's result for the provider's answer."""
        assert one.claim is not None and one.receipt is not None  # noqa: PT018
        return DeliveryResult(
            one.id,
            one.claim.claim,
            Status.SENT,
            number=1,
            outcome=Outcome.ACCEPTED,
            provider="twilio",
            provider_message_id=one.receipt.provider_message_id,
            id_space="twilio",
            due_in_seconds=300,
        )

    def _pass_time(self, ids: Sequence[UUID]) -> None:
        """Move time on, so that leases have ended and no message can appear any more."""
        over = "UPDATE states SET due_at = now() WHERE status = 'sending' AND id = ANY(:ids)"
        with transaction(self.engine) as connection:
            connection.execute(text(over), {"ids": list(ids)})
        self.texts.ledger.take_due(limit=10_000, unknown_after_seconds=30)
        # The provider's clock has whole seconds, and a message matches until a minute after the call.
        with transaction(self.engine) as connection:
            connection.execute(
                text("""UPDATE attempts SET started_at = now() - interval '70 s',
                finished_at = now() - interval '60 s' WHERE notification_id = ANY(:ids)"""),
                {"ids": list(ids)},
            )

    def reconciler(self) -> Reconciler:
        """A worker's reconciler."""
        providers = {"twilio": self.provider}
        return Reconciler(self.texts.ledger, self.composer, providers, self.settings, self.loop)

    def messages_of(self, one: One) -> list[SmsMessage]:
        """Messages that its calls really made."""
        path = f"/{one.id}/1"
        return [message for message in self.server.messages if (message.status_callback or "").endswith(path)]

    def report(self, message: SmsMessage, word: str) -> None:
        """The provider's signed report on a message, sent to the URL with which the message was made."""
        _, id_, attempt = (message.status_callback or "").rsplit("/", 2)
        self.texts.report(UUID(id_), word, attempt=int(attempt), sid=message.sid, id_space="twilio")

    def owners(self) -> dict[str, set[UUID]]:
        """SID → the notifications that have it, on themselves or on one of their attempts."""
        query = """SELECT provider_message_id, notification_id FROM attempts WHERE provider_message_id IS NOT NULL
          UNION SELECT provider_message_id, id FROM notifications WHERE provider_message_id IS NOT NULL
          UNION SELECT provider_message_id, notification_id FROM provider_messages"""
        found: dict[str, set[UUID]] = {}
        with transaction(self.engine) as connection:
            for sid, id_ in connection.execute(text(query)):
                found.setdefault(sid, set()).add(id_)
        return found
