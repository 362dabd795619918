"""The structure of the service, as notifier.toml has it: providers in failover order, sender identities, lanes."""

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
    """A sender identity: who a notification comes from. Producers name it, they never write it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: From address of mails, display name allowed; without it the identity cannot send mail.
    email: str | None = None
    #: Number, alphanumeric sender or messaging service id (MG…); without it it cannot send SMS.
    sms: str | None = None
    #: Maximum number of mails, and of SMS segments, a second, for all workers together; unset: no limit.
    rate_per_second: Annotated[float, Field(gt=0)] | None = None


class ProviderTable(BaseModel):
    """One `[[providers]]` of notifier.toml. Their order is the order of failover within a channel."""

    model_config = ConfigDict(extra="allow", frozen=True)

    #: Unique; appears in attempts, logs and metrics.
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=50)]
    #: Entry point in the group `notifier.providers`: "smtp", "twilio", …
    kind: str
    #: Maximum number of mails, or SMS segments, a second, for all workers together; unset: no limit.
    rate_per_second: Annotated[float, Field(gt=0)] | None = None
    #: Share of the traffic. If any provider of a channel has one, they are drawn by weight instead of by order.
    weight: Annotated[int, Field(ge=0, le=1000)] = 0

    @property
    def options(self) -> dict[str, str]:
        """All other options as strings, `${NAME}` replaced from the environment. Raises `ConfigurationError`."""
        extra = self.model_extra or {}
        return {key: expand(f"provider {self.name}", key, str(value)) for key, value in extra.items()}


class Structure(BaseModel):
    """notifier.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Tried in this order within a channel. Without any, NOTIFIER_SMTP_URL and NOTIFIER_TWILIO_* make one each.
    providers: tuple[ProviderTable, ...] = ()
    #: Name → identity.
    senders: dict[str, Sender] = Field(default_factory=dict)
    #: The identity of templates and messages that name none.
    default_sender: str = "default"
    #: SMS go only to numbers that begin with one of these ("+33"); empty: to all.
    sms_prefixes: tuple[Annotated[str, Field(pattern=r"^\+[1-9][0-9]{0,14}$")], ...] = ()
    #: See `Caps`.
    caps: Caps = Field(default_factory=Caps)
    #: Producer → its quota.
    quotas: dict[str, Quota] = Field(default_factory=dict)
    #: Lane → how it tries again; lanes left out keep their defaults.
    retry: dict[Lane, LaneRetry] = Field(default_factory=dict)
    #: Producer → where it is notified.
    callbacks: dict[str, CallbackTable] = Field(default_factory=dict)
    #: See `SuppressionTable`.
    suppressions: SuppressionTable = Field(default_factory=SuppressionTable)
    #: Channel → how long its notifications are kept; channels left out: forever.
    retention: dict[Channel, Retention] = Field(default_factory=dict)
    #: See `HeartbeatTable`.
    heartbeats: HeartbeatTable = Field(default_factory=HeartbeatTable)
    #: See `ConsoleTable`.
    console: ConsoleTable = Field(default_factory=ConsoleTable)
    #: Producer → who it is on the broker, and what it may send.
    producers: dict[Name, ProducerTable] = Field(default_factory=dict)
    #: Messages on the broker of a producer without `broker_user` are refused, too.
    require_proof: bool = False

    @field_validator("producers")
    @classmethod
    def _go_together(cls, tables: dict[str, ProducerTable], others: ValidationInfo) -> dict[str, ProducerTable]:
        if "senders" in others.data and "default_sender" in others.data:
            check_producers(tables, {*others.data["senders"], others.data["default_sender"]})
        return tables

    def sender_name(self, name: str | None) -> str:
        """The name of the identity that a message or template with this `sender` uses."""
        return name if name in self.senders else self.default_sender


def load_structure(path: Path) -> Structure:
    """Raises `ConfigurationError` if the file cannot be read or holds an unknown setting."""
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


#: Of the library's words those that say nothing to who writes a file. docs/reference/settings.md has every name.
_PLAIN_WORDS = {
    "extra_forbidden": "there is no such setting: see docs/reference/settings.md for its name",
    "missing": "is missing: add it",
}


def configuration_error(error: ValidationError, prefix: str, spell: Any) -> ConfigurationError:
    """All that is wrong, by the names in the file or the environment."""
    # The values are left out: they may be secrets.
    details = error.errors(include_url=False, include_input=False, include_context=False)
    spelled = [
        (prefix + spell(".".join(map(str, d["loc"]))), _PLAIN_WORDS.get(d["type"], d["msg"])) for d in details
    ]
    text = "; ".join(f"{where}: {message}" for where, message in spelled)
    return ConfigurationError(f"wrong settings: {text}", setting=spelled[0][0])
