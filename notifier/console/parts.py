"""What the pages work with: one of each for the process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from notifier.api.dependencies import ApiServices
from notifier.api.key_shares import Shares
from notifier.api.readiness import CachedAnswer
from notifier.bootstrap import Services
from notifier.console.pages import Pages
from notifier.operations.rendered_content import RenderedContents
from notifier.operations.sign_in import SignIn
from notifier.rendering import TemplateProblem, check_templates
from notifier.store.console_sessions import ConsoleSessionRepository
from notifier.store.message_content import ContentRepository
from notifier.store.operator_actions import Operating

#: What is wrong with the templates is looked for no more often.
CHECK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    pages: Pages
    sign_in: SignIn
    #: The same as the API's: a visitor has no more threads than a key.
    shares: Shares
    #: What the API's routes work with, and what it is made of.
    api: ApiServices
    services: Services
    operating: Operating
    contents: RenderedContents
    #: To check all templates is to render all their samples.
    template_problems: CachedAnswer[list[TemplateProblem]]


def make_parts(services: Services, api: ApiServices) -> ConsoleParts:
    """Opens no connection."""
    return ConsoleParts(
        pages=Pages(services.settings.timezone),
        sign_in=SignIn(ConsoleSessionRepository(services.engine), api.keys),
        shares=api.shares,
        api=api,
        services=services,
        operating=Operating(services.engine, services.hash_key),
        contents=RenderedContents(ContentRepository(services.engine, services.personal_data), services.renderer),
        template_problems=CachedAnswer(lambda: check_templates(services.settings.templates), CHECK_SECONDS),
    )


def _part(find: Callable[[ConsoleParts], Any]) -> Any:
    async def found(request: Request) -> Any:
        return find(request.app.state.console)

    return Depends(found)


PartsDep = Annotated[ConsoleParts, _part(lambda parts: parts)]
PagesDep = Annotated[Pages, _part(lambda parts: parts.pages)]
ApiDep = Annotated[ApiServices, _part(lambda parts: parts.api)]
