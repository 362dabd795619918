"""Who may: the key of a request, its scopes, its rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from notifier.operations.keys import Holder, Scope
from notifier.web.desk import AtDesk, Desk
from notifier.web.problems import Refusal, retry_after

#: A key may use up so much of its rate at once. Seconds.
BURST_SECONDS = 1.0

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="`notifier keys create` makes one.")
Shown = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def _holder(desk: Desk, shown: HTTPAuthorizationCredentials | None) -> Holder:
    """The key of this request, asked of the database each time: a revoked one is revoked at once."""
    if shown is None:
        raise _wrong_key("no key is given: send `Authorization: Bearer ntf_live_…`, or `ntf_test_…`")
    holder = desk.keys.holder(shown.credentials)
    if holder is None:
        raise _wrong_key("the key is not, or not any more, a valid one")
    return holder


def _wrong_key(detail: str) -> Refusal:
    return Refusal(401, detail, headers={"WWW-Authenticate": 'Bearer realm="notifier"'})


def admit(desk: Desk, holder: Holder, units: int = 1) -> None:
    """Count `units` against the key's rate.

    Raises:
        Refusal: 429, with the time after which there is room again.
    """
    rate = holder.rate_per_second
    if rate is None:
        return
    # Turns are handed out one after the other; those that begin within the burst may begin now.
    scope = f"key:{holder.key_id}"
    [turn] = desk.rates.take_turns(scope, [units], per_second=rate, at_most_seconds=BURST_SECONDS)
    if not turn.is_granted:
        headers = retry_after(turn.in_seconds - BURST_SECONDS)
        raise Refusal(429, f"this key may make {rate:g} requests a second", headers=headers)


def needs(*scopes: Scope) -> Callable[..., Holder]:
    """A dependency: a key with any of these scopes, within its rate."""

    def check(desk: AtDesk, shown: Shown) -> Holder:
        holder = _holder(desk, shown)
        check_scope(holder, *scopes)
        admit(desk, holder)
        return holder

    return check


def check_scope(holder: Holder, *scopes: Scope) -> None:
    """Let pass whoever has any of these scopes.

    Raises:
        Refusal: 403, if the key has none of them.
    """
    if not any(holder.may(scope) for scope in scopes):
        wanted = " or ".join(scopes)
        has = ", ".join(sorted(holder.scopes))
        ending = "" if holder.producer else ", and no producer"
        raise Refusal(403, f"this needs the scope {wanted}; the key has {has}{ending}")


Sender = Annotated[Holder, Depends(needs(Scope.SEND))]
Reader = Annotated[Holder, Depends(needs(Scope.READ))]
SenderOrReader = Annotated[Holder, Depends(needs(Scope.SEND, Scope.READ))]
SenderOrOperator = Annotated[Holder, Depends(needs(Scope.SEND, Scope.OPERATE))]
Operator = Annotated[Holder, Depends(needs(Scope.OPERATE))]
