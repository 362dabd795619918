"""Names for the unsubscribe page: what people call the mails that a link ends, and who sends them."""

from __future__ import annotations

from collections.abc import Sequence

from notifier.config.settings import Settings
from notifier.domain.errors import NotFound, TemplateInvalid
from notifier.domain.statuses import Channel
from notifier.providers.mail.address import parse_mailbox
from notifier.rendering import Renderer


class UnsubscribeNames:
    """Finds names. Reads templates from disk, and no database. Thread-safe."""

    def __init__(self, renderer: Renderer, settings: Settings) -> None:
        self._renderer = renderer
        self._settings = settings

    def of_category(self, category: str, locales: Sequence[str]) -> str:
        """The category's name in the first of these languages for which a template has one; otherwise the category
        itself."""
        names: dict[str, str] = {}
        for name in self._renderer.names(Channel.EMAIL):
            try:
                template = self._renderer.template(Channel.EMAIL, name)
            except (NotFound, TemplateInvalid):
                continue
            if template.category == category:
                names = {**template.category_names, **names}
        return next((names[locale] for locale in locales if locale in names), category)

    def of_sender(self, identity: str) -> str:
        """The display name in the sender's mails, such as "Corner Shop"; "" if there is none."""
        email = self._settings.sender(identity or None).email
        try:
            return parse_mailbox(email or "").name
        except ValueError:
            return ""
