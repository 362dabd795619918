"""Sends SMS through Vonage's SMS API, by plain HTTP.

The API (https://developer.vonage.com/en/api/sms) always answers HTTP 200; what counts is the status of each part,
which `response` reads. It has no idempotency keys and no search, so `VonageProvider` does not implement
`Reconciles`: a lost answer stays `OutcomeUnknown` until a delivery receipt comes. The URL in `callback` carries
the notification's id and attempt, `client-ref` the id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Self

from notifier.domain.gsm7 import fits_gsm
from notifier.domain.statuses import Channel
from notifier.providers.base import Outgoing, Receipt
from notifier.providers.http import (
    basic_authorization,
    in_time,
    judge_status,
    retry_after,
)
from notifier.providers.http_session import HttpCall, HttpSession
from notifier.providers.outcomes import UNKNOWN
from notifier.providers.sms import validity
from notifier.providers.vonage.options import TTL_SECONDS, VonageOptions
from notifier.providers.vonage.response import read_receipt
from notifier.providers.vonage.webhooks import ID_SPACE, DeliveryReceipt


class VonageProvider:
    channel = Channel.SMS
    id_space = ID_SPACE
    options_model = VonageOptions
    webhooks = (DeliveryReceipt,)

    def __init__(self, name: str, options: VonageOptions) -> None:
        self.name = name
        self._options = options
        self._session: HttpSession | None = None

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Self:
        return cls(name, VonageOptions.read(name, options))

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        form = self._form(outgoing)
        call = await self._ask("POST", "/sms/json", deadline_seconds, data=form)
        return read_receipt(call.body or "")

    @property
    def has_webhook(self) -> bool:
        return self._options.missing_for_webhooks is None

    async def check(self, *, deadline_seconds: float) -> str:
        """Returns a line such as "account abcd… has a balance of 10.28 EUR". Vonage's balances are in euros
        (https://developer.vonage.com/en/account/code-snippets/account-balance)."""
        key = self._options.api_key
        login = basic_authorization(key, self._options.api_secret)
        call = await self._ask("GET", "/account/get-balance", deadline_seconds, headers=login)
        try:
            balance = float(json.loads(call.body or "")["value"])
        except (ValueError, TypeError, LookupError) as error:
            raise UNKNOWN.error(f"unreadable answer: {type(error).__name__}", code=str(call.status)) from error
        return f"account {key[:4]}… has a balance of {balance:.2f} EUR"

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _form(self, outgoing: Outgoing) -> dict[str, str]:
        options = self._options
        seconds = validity(
            outgoing.seconds_to_expiry,
            longest=options.validity_seconds,
            shortest=TTL_SECONDS[0],
            problem=f"expires sooner than the {TTL_SECONDS[0]} s that Vonage needs at least",
        )
        form = {
            "api_key": options.api_key,
            "api_secret": options.api_secret,
            # E.164 without the plus, which the API does not accept.
            "from": outgoing.sender.removeprefix("+"),
            "to": outgoing.to.removeprefix("+"),
            "text": outgoing.text,
            "ttl": str(seconds * 1000),
            "client-ref": str(outgoing.notification_id),
        }
        if not fits_gsm(outgoing.text):
            # Without this, Vonage would replace characters that are not in the GSM alphabet.
            form["type"] = "unicode"
        if options.public_url is not None:
            path = f"webhooks/vonage/{outgoing.notification_id}/{outgoing.attempt}"
            # Each part has its own receipt; the text has arrived when all parts have.
            form["callback"] = f"{options.public_url}/{path}/{outgoing.segments}"
        return form

    async def _ask(
        self,
        method: str,
        path: str,
        deadline_seconds: float,
        *,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpCall:
        """Make a request. Returns the call if it was answered with 2xx.

        Raises:
            SendError: it was not.
        """
        if self._session is None:
            # Created at the first call, because a session belongs to the event loop that creates it.
            self._session = HttpSession()
        call = HttpCall(deadline_seconds)
        url = self._options.api_base + path
        async with in_time(call):
            await self._session.exchange(call, method, url, data=data, headers=headers)
        status = call.status or 0
        if not 200 <= status < 300:
            # The API itself never answers a send like this, but a proxy or a wrong address may.
            wait = retry_after(call.headers or {})
            raise judge_status(status).error(f"HTTP {status}", code=str(status), retry_after_seconds=wait)
        return call
