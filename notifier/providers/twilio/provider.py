"""Sends SMS through Twilio, with Twilio's own client.

Twilio has no idempotency key: a POST that ends without an answer or with a 5xx may have sent the SMS. Both are
`OutcomeUnknown`. They are resolved later by the StatusCallback, whose URL carries the notification's id and
attempt, or by `TwilioProvider.find`. How an accepted message ended is learned from the same callback, or from
`TwilioProvider.ask`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from twilio.base.exceptions import TwilioException
from twilio.rest import Client

from notifier.domain.errors import SendError, Unavailable
from notifier.domain.statuses import Channel, Reason
from notifier.providers.base import Outgoing, Receipt, Report, Sought
from notifier.providers.http import in_time, retry_after
from notifier.providers.http_session import HttpCall
from notifier.providers.outcomes import UNAVAILABLE, UNKNOWN
from notifier.providers.redaction import sms_detail
from notifier.providers.sms import validity
from notifier.providers.twilio.codes import judge
from notifier.providers.twilio.http import DeadlineHttpClient, calling
from notifier.providers.twilio.lookup import search, window_of
from notifier.providers.twilio.options import VALIDITY_SECONDS, TwilioOptions
from notifier.providers.twilio.webhooks import ID_SPACE, InboundText, TwilioStatusCallback, report_of

_SERVICE = re.compile(r"MG[0-9a-fA-F]{32}")


class TwilioProvider:
    channel = Channel.SMS
    id_space = ID_SPACE
    options_model = TwilioOptions
    webhooks = (InboundText, TwilioStatusCallback)

    def __init__(self, name: str, options: TwilioOptions) -> None:
        self.name = name
        self._options = options
        self._http: DeadlineHttpClient | None = None
        self._client: Any = None

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Self:
        return cls(name, TwilioOptions.read(name, options))

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        words = self._words(outgoing)
        with calling(deadline_seconds) as call:
            message = await self._ask(call, lambda client: client.messages.create_async(**words))
        if not message.sid:
            raise UNKNOWN.error("answered without a message id", code=str(call.status))
        return Receipt(provider_message_id=message.sid, detail=str(message.status))

    async def find(self, sought: Sought, *, deadline_seconds: float) -> Sequence[Receipt]:
        """See `Reconciles.find`. A message that failed or did not arrive was accepted all the same. A message that
        is not found within a minute of the call's end may still appear; until then this raises `Unavailable`."""
        window = window_of(sought, deadline_seconds)
        asked_at = sought.asked_at or datetime.now(UTC)
        try:
            with calling(deadline_seconds) as call:
                found: list[Receipt] = await self._ask(call, lambda client: search(client, sought, window))
        except SendError as error:
            raise _cannot_tell(error) from error
        if not found and asked_at < window.closes_at:
            left = (window.closes_at - asked_at).total_seconds()
            raise UNAVAILABLE.error("not found, but it may still turn up", retry_after_seconds=left)
        return found

    @property
    def has_webhook(self) -> bool:
        return self._options.missing_for_webhooks is None

    async def ask(self, provider_message_id: str, *, deadline_seconds: float) -> Report:
        try:
            with calling(deadline_seconds) as call:
                message = await self._ask(call, lambda client: client.messages(provider_message_id).fetch_async())
        except SendError as error:
            raise _cannot_tell(error) from error
        code = None if message.error_code is None else str(message.error_code)
        return report_of(provider_message_id, str(message.status), code, occurred_at=message.date_updated)

    async def check(self, *, deadline_seconds: float) -> str:
        sid = self._options.account_sid
        with calling(deadline_seconds) as call:
            account = await self._ask(call, lambda client: client.api.v2010.accounts(sid).fetch_async())
        return f"account {sid[:8]}… is {account.status}"

    async def close(self) -> None:
        http, self._http, self._client = self._http, None, None
        if http is not None:
            await http.close()

    def _words(self, outgoing: Outgoing) -> dict[str, Any]:
        words: dict[str, Any] = {
            "to": outgoing.to,
            "body": outgoing.text,
            "validity_period": validity(
                outgoing.seconds_to_expiry,
                longest=self._options.validity_seconds,
                shortest=VALIDITY_SECONDS[0],
                problem="expired before it could be handed to Twilio",
            ),
        }
        words["messaging_service_sid" if _SERVICE.fullmatch(outgoing.sender) else "from_"] = outgoing.sender
        if self._options.public_url is not None:
            path = f"webhooks/twilio/{outgoing.notification_id}/{outgoing.attempt}"
            words["status_callback"] = f"{self._options.public_url}/{path}"
        return words

    async def _ask(self, call: HttpCall, ask: Callable[[Any], Any]) -> Any:
        try:
            async with in_time(call):
                return await ask(self._connected())
        except SendError:
            raise
        except TwilioException:
            raise _refused(call) from None
        except Exception as error:
            # Twilio's client failed on a 2xx answer, in one of many ways: the SMS may have been sent.
            if call.status is None:
                raise
            raise UNKNOWN.error(f"unreadable answer: {type(error).__name__}", code=str(call.status)) from error

    def _connected(self) -> Any:
        # Created at the first call, because a session belongs to the event loop that creates it.
        if self._client is None:
            options = self._options
            self._http = DeadlineHttpClient(options.api_base)
            # With an empty environment, it would read ours, where a stray TWILIO_REGION changes the host.
            nothing = {"": ""}
            sid, token = options.account_sid, options.auth_token
            self._client = Client(sid, token, http_client=self._http, environment=nothing)
        return self._client


def _cannot_tell(error: SendError) -> Unavailable:
    """A failed question says nothing about the message; only whose fault the failure was is kept."""
    reason = Reason.PROVIDER_ACCOUNT if error.reason is Reason.PROVIDER_ACCOUNT else Reason.PROVIDER_UNAVAILABLE
    wait: float | None = getattr(error, "retry_after_seconds", None)
    return Unavailable(error.detail, code=error.code, reason=reason, retry_after_seconds=wait)


def _refused(call: HttpCall) -> SendError:
    status, (code, words) = call.status or 0, _read_error(call.body or "")
    verdict = judge(status, code)
    return verdict.error(
        sms_detail(words) or f"HTTP {status}",
        code=str(code or status),
        retry_after_seconds=retry_after(call.headers or {}),
    )


def _read_error(body: str) -> tuple[int | None, str]:
    """Code and message from `{code, message, more_info, status}`, or from RFC 9457 in newer parts of Twilio."""
    try:
        content = json.loads(body)
    except ValueError:
        return None, ""
    if not isinstance(content, dict):
        return None, ""
    code = content.get("code")
    words = content.get("message") or content.get("detail") or content.get("title") or ""
    return (code if isinstance(code, int) else None), str(words)
