"""The page of dead letters: messages that the broker gave up on. Shows them and publishes them again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response

from notifier.broker.dead_letters import DeadLetter, producers_own
from notifier.console.forms import ActForm
from notifier.console.outcomes import said
from notifier.console.parts import ConsoleParts, PartsDep, raw_publisher
from notifier.console.routes.rejected import REPLAY_SECONDS, as_text, not_looked_at
from notifier.console.session import OperatorThere, PageRoute
from notifier.domain.errors import NotFound
from notifier.operations.api_keys import Holder, Scope

router = APIRouter(route_class=PageRoute, include_in_schema=False)

#: Letters shown on the page. Each look at a letter counts as a delivery.
SHOWN = 50


class LettersForm(ActForm):
    """One letter; None: all of them."""

    letter: Annotated[str | None, Form(max_length=16)] = None


@router.get("/dead-letters")
def dead_letters(parts: PartsDep, visitor: OperatorThere, request: Request) -> Response:
    return _page(parts, visitor.holder, request)


@router.post("/dead-letters/replay")
def replay(
    parts: PartsDep, visitor: OperatorThere, request: Request, form: Annotated[LettersForm, Form()]
) -> Response:
    """Publish to the queues in which the letters died."""
    ids = None if form.letter is None else [form.letter]
    with raw_publisher(parts) as broker:
        waiting = broker.dead_letter_count()  # checks whether there is such a queue, before anything is recorded
        how: dict[str, Any] = {"operator": visitor.holder.operator, "reason": form.why}
        done = parts.replays.replay_dead(ids, broker, seconds=REPLAY_SECONDS, **how)
    told = said(done, "replayed", "dead letter", form)
    if ids is None and done.matched < waiting:
        told["lines"].append(not_looked_at(waiting - done.matched, "notifier queues dead replay"))
    return _page(parts, visitor.holder, request, done=told)


def _page(parts: ConsoleParts, holder: Holder, request: Request, **more: Any) -> Response:
    letters: list[DeadLetter] = []
    waiting, problem = 0, None
    try:
        with raw_publisher(parts) as broker:
            waiting = broker.dead_letter_count()
            letters = broker.dead_letters(SHOWN)
    except NotFound as error:
        problem = str(error)
    # Only admins see what producers sent, as with rejected messages.
    shown = [(one, as_text(one.raw.body) if holder.may(Scope.ADMIN) else None) for one in letters]
    headers = {one.id: producers_own(one.raw.headers) for one in letters}
    given: dict[str, Any] = {"done": None, "waiting": waiting, "problem": problem, "headers": headers, **more}
    return parts.pages.page(request, "dead_letters.html", letters=shown, **given)
