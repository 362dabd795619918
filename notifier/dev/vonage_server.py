"""A local server that answers like Vonage's SMS API: accepts every SMS, keeps it, and delivers none.

It supports what notifier asks of Vonage (send, balance), with Vonage's checks and form of errors: HTTP 200
whatever happens, and one entry in `messages` for each part of a text. It misbehaves on demand (`VonageRule`). It
sends no delivery receipts.
"""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from notifier.dev.faults import Faults
from notifier.dev.http_server import Action, LocalHttpServer
from notifier.dev.server_thread import running
from notifier.domain.gsm7 import fits_gsm

__all__ = ["VonageMessage", "VonageRule", "VonageServer", "running_vonage_server"]

#: The only account that exists.
API_KEY = "abcd1234"
API_SECRET = "local-api-secret"  # noqa: S105 - guards nothing

_NUMBER = re.compile(r"[0-9]{7,15}")
_REQUIRED = ("from", "to", "text")
_TTL_MILLISECONDS = (20_000, 604_800_000)
_BALANCE = "10.28000000"
#: How many of the newest messages are kept.
_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class VonageRule:
    #: Pattern of the number in `to`, which has no plus ("1555*").
    match: str
    #: Status of each part. If the rule has fewer than the message has parts, the last one repeats. A part with "0"
    #: is accepted.
    statuses: tuple[str, ...] = ("0",)
    error_text: str = "Internal Error"
    #: HTTP status to return instead of anything else; None: 200 and the parts.
    http_status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: For how many tries of each number the rule applies; None: always.
    times: int | None = None
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class VonageMessage:
    """One message of which the server accepted at least a part."""

    #: Ids of the accepted parts, in order.
    message_ids: tuple[str, ...]
    to: str
    sender: str
    text: str
    type: str
    ttl: int | None
    callback: str | None
    client_ref: str | None
    created_at: datetime


class VonageServer(LocalHttpServer):
    """The server. It listens from `start` to `stop`, and belongs to one event loop; `messages` may be read from
    any thread."""

    api_key = API_KEY
    api_secret = API_SECRET

    def __init__(self, rules: Sequence[VonageRule] = ()) -> None:
        """Create the server; nothing listens yet. Without rules, everything valid is accepted."""
        super().__init__()
        self.faults = Faults(rules)
        #: Messages accepted since the start, in whole or in part, including those no longer kept.
        self.received = 0
        self._messages: deque[VonageMessage] = deque(maxlen=_KEPT)

    @property
    def messages(self) -> list[VonageMessage]:
        """Kept messages, oldest first: a copy."""
        return list(self._messages)

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/sms/json", self._create)
        application.router.add_get("/account/get-balance", self._balance)
        return application

    async def _create(self, request: web.Request) -> web.StreamResponse:
        form = {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
        rule = self.faults.find(form.get("to", "")) or VonageRule("*")
        if rule.http_status is not None:
            return web.Response(status=rule.http_status, headers=rule.headers, text="Error")
        refused = self._refusal(form)
        if refused is not None:
            return web.json_response(_answer([refused]))
        parts = [_part(form["to"], status, rule.error_text) for status in _statuses(form, rule)]
        self._take(form, tuple(part["message-id"] for part in parts if part["status"] == "0"))
        return await self._answer(request, _answer(parts), status=200, action=rule.action)

    def _refusal(self, form: Mapping[str, str]) -> dict[str, str] | None:
        for name in _REQUIRED:
            if not form.get(name):
                return _error("2", f"Missing {name} param")
        if (form.get("api_key"), form.get("api_secret")) != (self.api_key, self.api_secret):
            return _error("4", "Bad Credentials")
        if not _NUMBER.fullmatch(form["to"]):
            return _error("3", "Invalid to param")
        low, high = _TTL_MILLISECONDS
        ttl = form.get("ttl", str(high))
        if not ttl.isdecimal() or not low <= int(ttl) <= high:
            return _error("3", "Invalid ttl param")
        if not form.get("callback", "http://").startswith(("http://", "https://")):
            return _error("23", "Bad callback :: Missing Protocol")
        return None

    def _take(self, form: Mapping[str, str], message_ids: tuple[str, ...]) -> None:
        if not message_ids:
            return
        self.received += 1
        message = VonageMessage(
            message_ids=message_ids,
            to=form["to"],
            sender=form["from"],
            text=_as_shown(form),
            type=form.get("type", "text"),
            ttl=int(form["ttl"]) if "ttl" in form else None,
            callback=form.get("callback"),
            client_ref=form.get("client-ref"),
            created_at=datetime.now(UTC),
        )
        self._messages.append(message)

    async def _balance(self, request: web.Request) -> web.StreamResponse:
        login = base64.b64encode(f"{self.api_key}:{self.api_secret}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {login}":
            content = {"error-code": "401", "error-code-label": "authentication failed"}
            return web.json_response(content, status=401)
        return web.json_response({"value": float(_BALANCE), "autoReload": False})


def _as_shown(form: Mapping[str, str]) -> str:
    """What the phone shows: without type=unicode, a question mark for each character that is not in the GSM
    alphabet."""
    if form.get("type") == "unicode":
        return form["text"]
    return "".join(character if fits_gsm(character) else "?" for character in form["text"])


def _statuses(form: Mapping[str, str], rule: VonageRule) -> tuple[str, ...]:
    # Imported here because it loads Jinja and Babel, which a server that only refuses does not need.
    from notifier.rendering import segments

    count = max(segments(form["text"]).count, len(rule.statuses))
    return rule.statuses + rule.statuses[-1:] * (count - len(rule.statuses))


def _part(to: str, status: str, error_text: str) -> dict[str, str]:
    if status != "0":
        return {"to": to, **_error(status, error_text)}
    return {
        "to": to,
        "message-id": secrets.token_hex(8).upper(),
        "status": "0",
        "remaining-balance": _BALANCE,
        "message-price": "0.03330000",
        "network": "99999",
    }


def _error(status: str, text: str) -> dict[str, str]:
    return {"status": status, "error-text": text}


def _answer(parts: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    return {"message-count": str(len(parts)), "messages": list(parts)}


@contextlib.contextmanager
def running_vonage_server(server: VonageServer | None = None, *, port: int = 0) -> Iterator[VonageServer]:
    """Run a local Vonage in a thread of its own: `with running_vonage_server() as server: … server.url`."""
    with running(server or VonageServer(), port=port) as started:
        yield started
