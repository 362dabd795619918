"""What operators do, on the configured database. Slow to import: only within a command."""

from __future__ import annotations

from functools import cached_property

from notifier.bootstrap import Services
from notifier.operations import Operations, Replays
from notifier.operations.api_keys import ApiKeys
from notifier.operations.callbacks import CallbackOperations
from notifier.operations.providers import ProviderOperations
from notifier.operations.recurring import RecurringNotifications
from notifier.operations.restored import Restored
from notifier.store.api_keys import ApiKeyRepository
from notifier.store.operator_actions import Operating
from notifier.store.recurring import RecurringRepository
from notifier.store.rejected import Rejections
from notifier.store.restored import RestoredRepository
from notifier.store.stuck import Lateness


class OperatorServices(Services):
    """The services of a process, and the actions of operators."""

    @cached_property
    def operating(self) -> Operating:
        return Operating(self.engine, self.hash_key)

    @property
    def operations(self) -> Operations:
        return Operations(self.operating, Lateness(self.engine))

    @property
    def replays(self) -> Replays:
        return Replays(self.operating, Rejections(self.engine, self.personal_data))

    @property
    def callback_operations(self) -> CallbackOperations:
        return CallbackOperations(self.callbacks, self.operating, self.settings.structure.callbacks)

    @property
    def provider_operations(self) -> ProviderOperations:
        return ProviderOperations(self.health, self.circuits, self.operating, self.settings.provider_tables())

    @property
    def recurring(self) -> RecurringNotifications:
        repository = RecurringRepository(self.engine, self.personal_data)
        return RecurringNotifications(repository, self.operating, self.renderer, self.own_intake.faults)

    @property
    def restored(self) -> Restored:
        return Restored(RestoredRepository(self.engine, self.hash_key), self.operating)

    @property
    def api_keys(self) -> ApiKeys:
        return ApiKeys(ApiKeyRepository(self.engine), self.operating)
