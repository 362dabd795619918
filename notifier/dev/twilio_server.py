"""A local server that answers like Twilio's API: accepts every SMS, keeps it, and delivers none.

It supports what notifier asks of Twilio (send, fetch, list, the account), with Twilio's checks, form of errors and
magic numbers. It misbehaves on demand (`TwilioRule`), and reports `sent` and `delivered` by signed status
callbacks.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp import web
from twilio.request_validator import RequestValidator

from notifier.dev.faults import Faults
from notifier.dev.http_server import LocalHttpServer
from notifier.dev.server_thread import running
from notifier.dev.twilio_faults import TwilioRefusal, TwilioRule
from notifier.dev.twilio_listing import listing
from notifier.dev.twilio_messages import API_VERSION, SmsMessage, new_message, refusal

__all__ = ["SmsMessage", "TwilioRule", "TwilioServer", "running_twilio_server"]

#: The only account that exists, and its token. Not a real account: zeros.
ACCOUNT_SID = "AC" + "0" * 32
AUTH_TOKEN = "local-auth-token"  # noqa: S105 - guards nothing

#: How often a status callback that cannot connect is tried, and the pause in between. Seconds.
_CALLBACK_TRIES, _CALLBACK_PAUSE_SECONDS = 20, 0.25

_ACCOUNT = f"/{API_VERSION}/Accounts/{{account}}"


class TwilioServer(LocalHttpServer):
    """The server. It listens from `start` to `stop`, and belongs to one event loop; `messages` may be read from
    any thread."""

    account_sid = ACCOUNT_SID
    #: Callbacks are also signed with it.
    auth_token = AUTH_TOKEN

    def __init__(
        self, rules: Sequence[TwilioRule] = (), *, callback_delay_seconds: float = 0.05, keep: int = 100_000
    ) -> None:
        """Create the server; nothing listens yet. Without rules, everything valid is accepted.

        Args:
            callback_delay_seconds: Pause before each of the two status callbacks of a message.
            keep: Number of the newest messages that are kept.
        """
        super().__init__()
        self.faults = Faults(rules)
        #: Faults when messages are listed, by the number that is searched for.
        self.listing_faults: Faults[TwilioRule] = Faults(())
        #: Messages accepted since the start, including those no longer kept.
        self.received = 0
        self._callback_delay_seconds = callback_delay_seconds
        self._keep = keep
        self._messages: dict[str, SmsMessage] = {}
        self._signature = RequestValidator(AUTH_TOKEN)
        self._callbacks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    @property
    def messages(self) -> list[SmsMessage]:
        """Kept messages, oldest first, each in its current state: a copy."""
        return list(self._messages.values())

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15))
        await super().start(host, port)

    async def stop(self) -> None:
        """Stop listening, close every connection, and drop callbacks that are still due."""
        self._stopping.set()
        for task in list(self._callbacks):
            task.cancel()
        await asyncio.gather(*self._callbacks, return_exceptions=True)
        await super().stop()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._authenticated])
        application.router.add_post(f"{_ACCOUNT}/Messages.json", self._create)
        application.router.add_get(f"{_ACCOUNT}/Messages.json", self._list)
        application.router.add_get(f"{_ACCOUNT}/Messages/{{sid}}.json", self._fetch)
        application.router.add_get(f"{_ACCOUNT}.json", self._account)
        return application

    @web.middleware
    async def _authenticated(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if not self._is_ours(request.headers.get("Authorization", "")):
            return _error(TwilioRefusal(401, 20003, "Authenticate"))
        if request.match_info.get("account", self.account_sid) != self.account_sid:
            return _not_found(request)
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPNotFound:
            return _not_found(request)
        except web.HTTPMethodNotAllowed:
            return _error(TwilioRefusal(405, 20004, "Method not allowed"))
        return response

    def _is_ours(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return False
        expected = f"{self.account_sid}:{self.auth_token}".encode()
        return scheme.lower() == "basic" and hmac.compare_digest(given, expected)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        form = {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
        rule = self.faults.find(form.get("To", ""))
        if rule is not None and rule.delay_seconds:
            await self._wait(rule.delay_seconds)
        if rule is not None and rule.status is not None:
            return _error(TwilioRefusal(rule.status, rule.code, rule.message), rule.headers)
        refused = refusal(form)
        if refused is not None:
            return _error(refused)
        message = self._take(form)
        self._report_later(message, rule)
        return await self._answer(request, message.as_json(), status=201, action=rule.action if rule else None)

    def _take(self, form: Mapping[str, str]) -> SmsMessage:
        message = new_message(self.account_sid, form)
        self.received += 1
        self._messages[message.sid] = message
        if len(self._messages) > self._keep:
            del self._messages[next(iter(self._messages))]
        return message

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        message = self._messages.get(request.match_info["sid"])
        return _not_found(request) if message is None else web.json_response(message.as_json())

    async def _list(self, request: web.Request) -> web.StreamResponse:
        rule = self.listing_faults.find(request.query.get("To", ""))
        if rule is not None and rule.status is not None:
            return _error(TwilioRefusal(rule.status, rule.code, rule.message), rule.headers)
        content = listing(request, self.messages)
        return await self._answer(request, content, status=200, action=rule.action if rule else None)

    async def _account(self, request: web.Request) -> web.StreamResponse:
        now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")
        resource = {
            "sid": self.account_sid,
            "friendly_name": "local",
            "status": "active",
            "type": "Full",
            "owner_account_sid": self.account_sid,
            "auth_token": "",
            "date_created": now,
            "date_updated": now,
            "subresource_uris": {},
            "uri": request.path,
        }
        return web.json_response(resource)

    def _report_later(self, message: SmsMessage, rule: TwilioRule | None) -> None:
        task = asyncio.get_running_loop().create_task(self._report(message, rule or TwilioRule("*")))
        self._callbacks.add(task)
        task.add_done_callback(self._callbacks.discard)

    async def _report(self, message: SmsMessage, rule: TwilioRule) -> None:
        """Let the message reach its final status, and report to StatusCallback if there is one."""
        for status, error_code in (("sent", None), (rule.final_status, rule.error_code)):
            await asyncio.sleep(self._callback_delay_seconds)
            message = message.moved_to(status, error_code=error_code)
            if message.sid in self._messages:
                self._messages[message.sid] = message
            if message.status_callback is not None:
                await self._call_back(message.status_callback, message.as_callback())

    async def _call_back(self, url: str, form: dict[str, str]) -> None:
        assert self._session is not None
        headers = {"X-Twilio-Signature": self._signature.compute_signature(url, form)}
        # Twilio repeats a callback only if it could not connect, and so does this server: the API may still be
        # starting.
        for _ in range(_CALLBACK_TRIES):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                try:
                    async with self._session.post(url, data=form, headers=headers):
                        return
                except aiohttp.ClientConnectorError:
                    await self._wait(_CALLBACK_PAUSE_SECONDS)
                    continue
            return


def _not_found(request: web.Request) -> web.Response:
    return _error(TwilioRefusal(404, 20404, f"The requested resource {request.path} was not found"))


def _error(refused: TwilioRefusal, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {
        "code": refused.code,
        "message": refused.message,
        "more_info": f"https://www.twilio.com/docs/errors/{refused.code}",
        "status": refused.status,
    }
    return web.json_response(body, status=refused.status, headers=headers)


@contextlib.contextmanager
def running_twilio_server(server: TwilioServer | None = None, *, port: int = 0) -> Iterator[TwilioServer]:
    """Run a local Twilio in a thread of its own: `with running_twilio_server() as server: … server.url`."""
    with running(server or TwilioServer(), port=port) as started:
        yield started
