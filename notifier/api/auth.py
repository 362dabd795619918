"""Checks the key of a request, its scopes and its rate, all before the body is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from inspect import iscoroutinefunction
from itertools import chain
from typing import Annotated, Any, get_origin

from fastapi import Depends, Request, Response, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from notifier.api.dependencies import ApiServices
from notifier.api.errors import GIVEN_TWICE, Refusal, retry_after
from notifier.api.middleware import declared_size
from notifier.operations.api_keys import ApiKeys, Holder, Scope
from notifier.store.rate_limits import RateLimitRepository

#: How much of its rate a key may use up at once. Seconds.
BURST_SECONDS = 1.0

#: A body larger than this counts as large. Each key may send only a few large bodies at once
#: (`ApiServices.large_bodies`); others wait unread.
LARGE_BODY_BYTES = 64 * 1024

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="`notifier keys create` makes one.")
Shown = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def _holder(keys: ApiKeys, shown: HTTPAuthorizationCredentials | None) -> Holder:
    """The holder of the key. Raises `Refusal`, 401, if the request has no valid key."""
    if shown is None:
        raise _wrong_key("no key is given: send `Authorization: Bearer ntf_live_…`, or `ntf_test_…`")
    holder = keys.holder(shown.credentials)
    if holder is None:
        raise _wrong_key("the key is not valid")
    return holder


def _wrong_key(detail: str) -> Refusal:
    return Refusal(401, detail, headers={"WWW-Authenticate": 'Bearer realm="notifier"'})


def admit(rates: RateLimitRepository, holder: Holder, units: int = 1) -> None:
    """Count `units` against the key's rate. Raises `Refusal`, 429, if the rate is used up."""
    rate = holder.rate_per_second
    if rate is None:
        return
    # Turns are handed out one after the other; a turn that begins within the burst may begin now.
    scope = f"key:{holder.key_id}"
    [turn] = rates.take_turns(scope, [units], per_second=rate, at_most_seconds=BURST_SECONDS)
    if not turn.is_granted:
        headers = retry_after(turn.in_seconds - BURST_SECONDS)
        raise Refusal(429, f"this key may make {rate:g} requests a second", headers=headers)


class Needs:
    """A dependency: the request needs a key with any of these scopes, and within its rate. `KeyedRoute` checks
    it."""

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = scopes

    async def __call__(self, request: Request, _: Shown) -> Holder:
        holder: Holder = request.state.holder
        return holder

    def known(self, services: ApiServices, shown: HTTPAuthorizationCredentials | None) -> Holder | None:
        """The holder, without asking the database; None: the database has to be asked. Raises `Refusal`: 403."""
        holder = services.keys.known(shown.credentials) if shown else None
        if holder is None or holder.rate_per_second is not None:
            return None
        check_scope(holder, *self.scopes)
        return holder

    def check(self, services: ApiServices, shown: HTTPAuthorizationCredentials | None) -> Holder:
        """The holder, from the database. Raises `Refusal`: 401, 403 or 429."""
        holder = _holder(services.keys, shown)
        check_scope(holder, *self.scopes)
        admit(services.rates, holder)
        return holder


class KeyedRoute(APIRoute):
    """A route that needs a key. It checks the key first, because FastAPI would read the body before that."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        [needs] = [found.call for found in self.dependant.dependencies if isinstance(found.call, Needs)]
        # FastAPI runs functions that are not coroutines in threads.
        takes_thread = not iscoroutinefunction(self.endpoint)
        query = _QueryNames.of(self.dependant)

        async def checked(request: Request) -> Response:
            services: ApiServices = request.app.state.services
            shown = await _bearer(request)
            key = shown.credentials if shown else ""
            holder = needs.known(services, shown)
            if holder is None:
                async with services.shares.turn(key):
                    holder = await run_in_threadpool(needs.check, services, shown)
            request.state.holder = holder
            query.check(request)
            async with AsyncExitStack() as turns:
                if _is_large(request):
                    await turns.enter_async_context(services.large_bodies.turn(key))
                # The body is read before a thread is taken, because slow clients would otherwise take all threads.
                # FastAPI then finds it read.
                await request.body()
                if not takes_thread:
                    return await handle(request)
                async with services.shares.turn(key):
                    return await handle(request)

        return checked


@dataclass(frozen=True, slots=True)
class _QueryNames:
    """The query parameters that a route takes. If the route has a model for them, the model refuses unknown
    ones."""

    has_model: bool
    #: Parameters that may be repeated.
    lists: frozenset[str]

    @classmethod
    def of(cls, route: Dependant) -> _QueryNames:
        models: list[Any] = [found.field_info.annotation for found in route.query_params]
        fields = chain.from_iterable(model.model_fields.items() for model in models)
        lists = frozenset(name for name, field in fields if get_origin(field.annotation) is list)
        return cls(bool(models), lists)

    def check(self, request: Request) -> None:
        """Refuse unknown and repeated parameters: if `?dry_run=true` were ignored where it does not exist, or only
        the first of two values were used, the client would rely on it. Raises `RequestValidationError`."""
        given = Counter(name for name, _ in request.query_params.multi_items())
        if not self.has_model:
            wrong = [("extra_forbidden", name, "there is no such parameter here") for name in given]
        else:
            repeated = [name for name, times in given.items() if times > 1 and name not in self.lists]
            wrong = [(GIVEN_TWICE, name, f"given {given[name]} times, and takes one value") for name in repeated]
        if wrong:
            raise RequestValidationError(
                [{"type": kind, "loc": ("query", name), "msg": problem} for kind, name, problem in wrong]
            )


def _is_large(request: Request) -> bool:
    """Whether the body is, or may be, so large that only a few fit in memory at once."""
    declared = declared_size(request.headers)
    return "transfer-encoding" in request.headers if declared is None else declared > LARGE_BODY_BYTES


def check_scope(holder: Holder, *scopes: Scope) -> None:
    """Raises `Refusal`, 403, if the key has none of these scopes."""
    if not any(holder.may(scope) for scope in scopes):
        wanted = " or ".join(scopes)
        has = ", ".join(sorted(holder.scopes))
        if holder.key_id is None:
            raise Refusal(403, f"this needs the role {wanted}; you have {has}")
        ending = "" if holder.producer else ", and no producer"
        raise Refusal(403, f"this needs the scope {wanted}; the key has {has}{ending}")


Sender = Annotated[Holder, Depends(Needs(Scope.SEND))]
Reader = Annotated[Holder, Depends(Needs(Scope.READ))]
SenderOrReader = Annotated[Holder, Depends(Needs(Scope.SEND, Scope.READ))]
SenderOrOperator = Annotated[Holder, Depends(Needs(Scope.SEND, Scope.OPERATE))]
Operator = Annotated[Holder, Depends(Needs(Scope.OPERATE))]
