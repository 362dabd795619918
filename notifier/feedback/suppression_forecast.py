"""Counts, before a retry, how many of its messages would end as suppressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from notifier.config.settings import Settings
from notifier.domain.errors import NotFound, TemplateInvalid
from notifier.domain.statuses import Channel, Status
from notifier.feedback.suppressions import category_scope, sender_scope
from notifier.rendering import Renderer
from notifier.store.selection import Selection
from notifier.store.suppression_forecast import ForecastRepository, SuppressionRule


class SuppressionForecast:
    """Counts suppressed messages. Thread-safe. Messages whose template is broken or missing count as not
    suppressed, because they fail before."""

    def __init__(self, repository: ForecastRepository, renderer: Renderer, settings: Settings) -> None:
        self._repository = repository
        self._renderer = renderer
        self._settings = settings

    def count(self, selection: Selection, sources: Sequence[Status]) -> int:
        """Count those with a status in `sources`. Raises `ServiceUnavailable`."""
        return self._repository.count(selection, sources, list(self._rules()))

    def _rules(self) -> Iterator[SuppressionRule]:
        for channel in Channel:
            for name in self._renderer.names(channel):
                try:
                    template = self._renderer.template(channel, name)
                except (NotFound, TemplateInvalid):
                    continue
                sender = sender_scope(self._settings.sender_name(template.sender))
                category = template.category and category_scope(template.category)
                yield SuppressionRule(channel, name, sender, category, template.suppression_exempt)
