"""The services for operators' commands, on the configured database. Slow to import, so import it inside a command.
What few commands need is imported where it is made."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from notifier.bootstrap import Services

if TYPE_CHECKING:
    from notifier.operations import Operations, Replays
    from notifier.operations.api_keys import ApiKeys
    from notifier.operations.callbacks import CallbackOperations
    from notifier.operations.providers import ProviderOperations
    from notifier.operations.recurring import RecurringNotifications
    from notifier.operations.restored import Restored
    from notifier.store.operator_actions import OperatorActions


class OperatorServices(Services):
    """The services of a process, and operators' actions."""

    @cached_property
    def operator_actions(self) -> OperatorActions:
        from notifier.store.operator_actions import OperatorActions

        return OperatorActions(self.engine, self.hash_key)

    @property
    def operations(self) -> Operations:
        from notifier.operations import Operations
        from notifier.store.stuck import Lateness

        # Only a dry run reads the templates.
        return Operations(
            self.operator_actions,
            Lateness(self.engine),
            lambda wanted, sources: self.suppression_forecast.count(wanted, sources),
            self.provider_operations.paused_channels,
        )

    @property
    def replays(self) -> Replays:
        from notifier.operations import Replays
        from notifier.store.rejected import Rejections

        return Replays(self.operator_actions, Rejections(self.engine, self.personal_data))

    @property
    def callback_operations(self) -> CallbackOperations:
        from notifier.operations.callbacks import CallbackOperations

        return CallbackOperations(self.callbacks, self.operator_actions, self.settings.structure.callbacks)

    @property
    def provider_operations(self) -> ProviderOperations:
        from notifier.operations.providers import ProviderOperations

        return ProviderOperations(
            self.health, self.circuits, self.operator_actions, self.settings.provider_tables()
        )

    @property
    def recurring(self) -> RecurringNotifications:
        from notifier.operations.recurring import RecurringNotifications
        from notifier.store.recurring import RecurringRepository

        repository = RecurringRepository(self.engine, self.personal_data)
        return RecurringNotifications(repository, self.operator_actions, self.renderer, self.own_intake.faults)

    @property
    def restored(self) -> Restored:
        from notifier.operations.restored import Restored
        from notifier.store.restored import RestoredRepository

        return Restored(RestoredRepository(self.engine, self.hash_key), self.operator_actions)

    @property
    def api_keys(self) -> ApiKeys:
        from notifier.operations.api_keys import ApiKeys
        from notifier.store.api_keys import ApiKeyRepository

        return ApiKeys(ApiKeyRepository(self.engine), self.operator_actions)
