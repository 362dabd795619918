"""The structure of the service in notifier.toml: providers in failover order, sender identities, lanes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from notifier.config.callbacks import CallbackTable, expand
from notifier.config.console import ConsoleTable
from notifier.config.heartbeats import HeartbeatTable
from notifier.config.limits import Caps, Quota, Retention, SuppressionTable
from notifier.config.producers import ProducerTable, check_producers
from notifier.domain.errors import ConfigurationError
from notifier.domain.message import Name
from notifier.domain.retry_policy import LaneRetry
from notifier.domain.statuses import SIMULATOR, Channel, Lane


class Sender(BaseModel):
    """A sender identity: who a notification comes from. Producers refer to it by name and never write
    addresses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: From address of mails, with an optional display name. Without it, the identity cannot send mail.
    email: str | None = None
    #: Number, alphanumeric sender or messaging service id (MG…). Without it, the identity cannot send SMS.
    sms: str | None = None
    #: Maximum mails, and SMS segments, per second, for all workers together; unset: no limit.
    rate_per_second: Annotated[float, Field(gt=0)] | None = None


class ProviderTable(BaseModel):
    """One `[[providers]]` of notifier.toml. Their order is the order of failover within a channel."""

    model_config = ConfigDict(extra="allow", frozen=True)

    #: Unique. Used in attempts, logs and metrics.
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=50)]
    #: Entry point in the group `notifier.providers`: "smtp", "twilio", …
    kind: str
    #: Maximum mails, or SMS segments, per second, for all workers together; unset: no limit.
    rate_per_second: Annotated[float, Field(gt=0)] | None = None
    #: Share of the traffic. If any provider of a channel has a weight, providers are drawn by weight instead of by
    #: order.
    weight: Annotated[int, Field(ge=0, le=1000)] = 0

    @property
    def options(self) -> dict[str, str]:
        """All other options as strings, with `${NAME}` replaced from the environment. Raises
        `ConfigurationError`."""
        extra = self.model_extra or {}
        return {key: expand(f"provider {self.name}", key, str(value)) for key, value in extra.items()}


class Structure(BaseModel):
    """notifier.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Tried in this order within a channel. If there are none, NOTIFIER_SMTP_URL and NOTIFIER_TWILIO_* make one
    #: each.
    providers: tuple[ProviderTable, ...] = ()
    #: Name → identity.
    senders: dict[str, Sender] = Field(default_factory=dict)
    #: The identity for templates and messages that name none.
    default_sender: str = "default"
    #: SMS are sent only to numbers that begin with one of these ("+33"); empty: to all.
    sms_prefixes: tuple[Annotated[str, Field(pattern=r"^\+[1-9][0-9]{0,14}$")], ...] = ()
    #: See `Caps`.
    caps: Caps = Field(default_factory=Caps)
    #: Producer → its quota.
    quotas: dict[str, Quota] = Field(default_factory=dict)
    #: Lane → how it retries. Lanes that are left out keep their defaults.
    retry: dict[Lane, LaneRetry] = Field(default_factory=dict)
    #: Producer → where it is notified.
    callbacks: dict[str, CallbackTable] = Field(default_factory=dict)
    #: See `SuppressionTable`.
    suppressions: SuppressionTable = Field(default_factory=SuppressionTable)
    #: Channel → how long its notifications are kept. Channels that are left out: for ever.
    retention: dict[Channel, Retention] = Field(default_factory=dict)
    #: See `HeartbeatTable`.
    heartbeats: HeartbeatTable = Field(default_factory=HeartbeatTable)
    #: See `ConsoleTable`.
    console: ConsoleTable = Field(default_factory=ConsoleTable)
    #: Producer → who it is on the broker, and what it may send.
    producers: dict[Name, ProducerTable] = Field(default_factory=dict)
    #: Refuse messages on the broker from producers without `broker_user` as well.
    require_proof: bool = False

    @field_validator("producers")
    @classmethod
    def _go_together(cls, tables: dict[str, ProducerTable], others: ValidationInfo) -> dict[str, ProducerTable]:
        if "senders" in others.data and "default_sender" in others.data:
            check_producers(tables, {*others.data["senders"], others.data["default_sender"]})
        return tables

    def sender_name(self, name: str | None) -> str:
        """The name of the identity for a message or template with this `sender`."""
        return name if name in self.senders else self.default_sender


def load_structure(path: Path) -> Structure:
    """Read the file. Raises `ConfigurationError` if it cannot be read or has an unknown setting."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror}): check NOTIFIER_CONFIG", setting="NOTIFIER_CONFIG"
        ) from None
    except ValueError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}", setting=str(path)) from None
    try:
        structure = Structure.model_validate(content)
    except ValidationError as error:
        raise configuration_error(error, f"{path}: ", str) from None
    names = [table.name for table in structure.providers]
    if len({*names, SIMULATOR}) != len(names) + 1:
        problem = (
            f"two providers have the same name, or one is called {SIMULATOR}, the name of what answers test keys"
        )
        raise ConfigurationError(f"{path}: {problem}; rename one", setting="providers")
    return structure


#: Replaces phrases of the library that mean nothing to people who write the file. docs/reference/settings.md has
#: every name.
_PLAIN_WORDS = {
    "extra_forbidden": "there is no such setting: see docs/reference/settings.md for its name",
    "missing": "is missing: add it",
}


def configuration_error(error: ValidationError, prefix: str, spell: Any) -> ConfigurationError:
    """One error with everything that is wrong, using the names in the file or the environment."""
    # The values are left out, because they may be secrets.
    details = error.errors(include_url=False, include_input=False, include_context=False)
    spelled = [
        (prefix + spell(".".join(map(str, d["loc"]))), _PLAIN_WORDS.get(d["type"], d["msg"])) for d in details
    ]
    text = "; ".join(f"{where}: {message}" for where, message in spelled)
    return ConfigurationError(f"wrong settings: {text}", setting=spelled[0][0])
