"""The objects that the pages work with, one of each for the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from notifier.api.dependencies import ApiServices
from notifier.api.key_shares import Shares
from notifier.api.readiness import CachedAnswer
from notifier.bootstrap import Services
from notifier.broker.dead_letters import RawPublisher
from notifier.config.identity_provider import OidcClient, oidc_client
from notifier.console.pages import Pages
from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from notifier.operations import Replays
from notifier.operations.rendered_content import RenderedContents
from notifier.operations.sign_in import SignIn
from notifier.rendering import TemplateChecks, TemplateProblem
from notifier.store.console_sessions import ConsoleSessionRepository
from notifier.store.message_content import ContentRepository
from notifier.store.operator_log import OperatorLog
from notifier.store.rejected import Rejections

if TYPE_CHECKING:
    from notifier.operations.id_tokens import OidcSignIn

#: Templates are checked for problems at most this often.
CHECK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    pages: Pages
    sign_in: SignIn
    #: None: people sign in with keys only.
    oidc: OidcSignIn | None
    #: Shared with the API: a visitor gets no more threads than a key.
    shares: Shares
    #: The objects that the API's routes work with.
    api: ApiServices
    services: Services
    log: OperatorLog
    rejections: Rejections
    replays: Replays
    contents: RenderedContents
    template_checks: TemplateChecks
    #: Problems of all templates. Cached, because there may be hundreds of files to check.
    template_problems: CachedAnswer[list[TemplateProblem]]


def make_parts(services: Services, api: ApiServices) -> ConsoleParts:
    """Make the objects. Opens no connection. Raises `ConfigurationError` if the identity provider's settings are
    wrong."""
    client = oidc_client(services.settings)
    rejections = Rejections(services.engine, services.personal_data)
    checks = TemplateChecks(services.settings.templates)
    return ConsoleParts(
        pages=Pages(services.settings.timezone),
        sign_in=SignIn(
            ConsoleSessionRepository(services.engine), api.keys, has_identity_provider=client is not None
        ),
        oidc=None if client is None else _oidc(client),
        shares=api.shares,
        api=api,
        services=services,
        log=OperatorLog(services.engine),
        rejections=rejections,
        replays=Replays(api.operator_actions, rejections),
        contents=RenderedContents(ContentRepository(services.engine, services.personal_data), services.renderer),
        template_checks=checks,
        template_problems=CachedAnswer(checks.problems, CHECK_SECONDS),
    )


def _oidc(client: OidcClient) -> OidcSignIn:
    # Takes 13 MB, so it is loaded only if it is used.
    from notifier.operations.id_tokens import OidcSignIn

    return OidcSignIn(client)


@contextmanager
def raw_publisher(parts: ConsoleParts) -> Iterator[RawPublisher]:
    """A separate connection to the broker. Entering raises `ServiceUnavailable` even if a setting is wrong,
    because the person looking at a page cannot correct it."""
    settings = parts.services.settings
    try:
        with RawPublisher.connect(settings.require("broker_url"), known_as=settings.broker_user) as publisher:
            yield publisher
    except ConfigurationError as error:
        raise ServiceUnavailable(str(error)) from error


def _part(find: Callable[[ConsoleParts], Any]) -> Any:
    async def found(request: Request) -> Any:
        return find(request.app.state.console)

    return Depends(found)


PartsDep = Annotated[ConsoleParts, _part(lambda parts: parts)]
PagesDep = Annotated[Pages, _part(lambda parts: parts.pages)]
ApiDep = Annotated[ApiServices, _part(lambda parts: parts.api)]
