"""Settings: the only reader of `NOTIFIER_*` variables. `structure` has the contents of notifier.toml.

The environment or secret files say where to connect. One `notifier.toml` has the structure: providers in failover
order, sender identities, lanes. Secrets are masked in every `repr`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from notifier.config.bounce_address import BounceAddress
from notifier.config.callbacks import read_name_servers
from notifier.config.running_service import RUNNING_FILE, data_dir, default_data_dir, is_own_file
from notifier.config.secret_files import read_secret, secret_files, secrets_folder
from notifier.config.sources import FilledSource
from notifier.config.structure import ProviderTable, Sender, Structure, configuration_error, load_structure
from notifier.domain.errors import ConfigurationError
from notifier.domain.local_days import zone_of
from notifier.domain.message import MAX_MAIL_ATTACHMENTS
from notifier.domain.retry_policy import DEFAULT_RETRIES, LaneRetry
from notifier.domain.statuses import Lane
from notifier.security.encryption import read_keys

#: A claim outlives a provider call by at least this: rendering, waiting for a slot, writing the result. Seconds.
LEASE_MARGIN_SECONDS = 15.0

#: A key that somebody could guess protects nobody. Characters.
MIN_HASH_KEY = 16

_PACKAGE = Path(__file__).parents[1]


def bundled(name: str) -> Path:
    """A file or folder that ships with notifier (`templates`, `migrations`, `notifier.toml`): from the checkout if
    there is one, otherwise the copy in the wheel."""
    inside = _PACKAGE / "_bundled" / name
    return inside if inside.exists() else _PACKAGE.parent / name


#: Enough to find a slip at the start; the intake checks these addresses like any other.
_ADDRESS = re.compile(r"[^@\s<>]+@[^@\s<>]+")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _read_zone(name: object) -> object:
    return zone_of(name.strip()) if isinstance(name, str) else name


class Settings(BaseSettings):
    """The environment, typed: each field is `NOTIFIER_<NAME>`, or a file of that name in the secrets folder."""

    model_config = SettingsConfigDict(
        env_prefix="NOTIFIER_", extra="ignore", frozen=True, validate_by_name=True, validate_by_alias=True
    )

    #: postgresql://user:password@host:5432/name
    database_url: SecretStr | None = None
    #: A standby that takes over has everything that the primary had (synchronous replication), so work continues
    #: there.
    trust_failover: bool = False
    #: amqp://user:password@host:5672/vhost or redis://host:6379/0
    broker_url: SecretStr | None = None
    #: RabbitMQ's name for us, if it is not the URL's user (certificate, OAuth 2); empty: none is sent.
    broker_user: str | None = None
    #: Celery's result backend, if you want one (redis://…). Off by default, because the database is the record.
    result_backend: SecretStr | None = None
    #: Folder of templates.
    templates: Path = Field(default_factory=lambda: bundled("templates"))
    #: Path of notifier.toml; unset: ./notifier.toml if there is one, otherwise only the environment.
    config: Path | None = None
    #: smtp://user:password@host:587, smtps://host:465; ?starttls=required|never (with a password: required)
    smtp_url: SecretStr | None = None
    #: Key of the hashes that stand for recipients. Unset: a key that everybody knows, which protects nobody.
    hash_key: SecretStr | None = None
    #: Where bounces come back to; bounces+<token>@example.com is then each mail's envelope sender.
    bounce_address: BounceAddress | None = None
    #: Keys that seal personal data, `<id>:<base64>`, separated by commas: the first seals, all open. Unset: not
    #: sealed.
    encryption_keys: SecretStr | None = None
    #: AC… of the Twilio account.
    twilio_account_sid: str | None = None
    #: The account's primary auth token.
    twilio_auth_token: SecretStr | None = None
    #: Number, alphanumeric sender or MG… for SMS whose identity has none.
    twilio_from: str | None = None
    #: Another base URL for Twilio's API: for tests, the local Twilio, or an egress proxy.
    twilio_api_base: str | None = None
    #: From address of mails whose identity has none.
    email_from: str | None = None
    #: Where providers and recipients reach this service, such as https://notify.example.com
    public_url: str | None = None
    #: Domain of Message-IDs after the @; unset: the sender's domain.
    message_id_domain: str | None = None
    #: Where `notifier up` keeps its embedded services.
    data_dir: Path = Field(default_factory=default_data_dir)
    #: IANA name of the time zone in which days begin at midnight, for daily work, statistics and quotas.
    timezone: Annotated[ZoneInfo, BeforeValidator(_read_zone)] = ZoneInfo("UTC")
    #: Addresses that receive a report on each day, separated by commas.
    report_recipients: str = ""
    #: debug, info, warning or error.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    #: json for machines, text for people; auto: text on a terminal.
    log_format: Literal["auto", "json", "text"] = "auto"
    #: Port on which a program answers `/metrics` and `/healthz`; each program needs its own. Unset: none. Not for
    #: the API.
    metrics_port: Annotated[int | None, Field(ge=1, le=65535)] = None
    #: 0.0.0.0: all addresses of the host.
    metrics_host: str = "127.0.0.1"
    #: Deliver tasks that one worker process handles concurrently.
    worker_threads: Annotated[int, Field(ge=1, le=256)] = 8
    #: Concurrent calls to each provider in one worker process.
    worker_calls: Annotated[int, Field(ge=1, le=1000)] = 200
    #: Workers answer questions of Flower and `celery inspect`, which come over the broker. They never obey
    #: commands.
    worker_questions: bool = False
    #: Where `notifier api` listens; 0.0.0.0: on all addresses of the host.
    api_host: str = "127.0.0.1"
    #: Its port.
    api_port: Annotated[int, Field(ge=1, le=65535)] = 8080
    #: Requests that one API process handles concurrently, each with a connection to the database.
    api_threads: Annotated[int, Field(ge=1, le=256)] = 16
    #: Maximum open connections of one API process.
    api_connections: Annotated[int, Field(ge=10, le=60_000)] = 1000
    #: Maximum of these from one address; a proxy is one address.
    api_peer_connections: Annotated[int, Field(ge=5, le=60_000)] = 250
    #: Folder of Swagger UI (npm's swagger-ui-dist) for the page /docs; None: there is no such page.
    api_docs: Path | None = None
    #: Maximum size of a file that producers upload. Bytes.
    attachment_max_bytes: Annotated[int, Field(ge=1024, le=MAX_MAIL_ATTACHMENTS)] = 5 * 1024 * 1024
    #: Maximum total size of one producer's files. Bytes.
    attachment_quota_bytes: Annotated[int, Field(ge=MAX_MAIL_ATTACHMENTS)] = 1024 * 1024 * 1024
    #: Types of files that producers may upload, separated by commas.
    attachment_types: str = "application/pdf,image/png,image/jpeg,image/gif,text/plain,text/csv,text/calendar"
    #: Files are deleted this long after the last message that names them was due. Days.
    attachment_days: Annotated[int, Field(ge=1, le=3650)] = 7
    #: Hosts of callbacks that may use http, any port and any address; separated by commas.
    callback_allow_hosts: str = ""
    #: Name servers for hosts of callbacks, such as 10.0.0.2 or [2001:db8::2]:5353; unset: those in
    #: /etc/resolv.conf.
    callback_name_servers: str = ""
    #: The identity provider with which people sign in to the console, as its discovery document names it.
    oidc_issuer: str | None = None
    #: The client id of this service at the provider.
    oidc_client_id: str | None = None
    #: The client secret of this service at the provider.
    oidc_client_secret: SecretStr | None = None
    #: How long a program may take to end in order after SIGTERM, Ctrl-C or SIGHUP; then it ends itself. Seconds.
    grace_seconds: Annotated[float, Field(ge=1, le=3600)] = 45.0
    #: How long a claim lasts: longer than the time limit of a provider call, with room for waiting. Seconds.
    lease_seconds: Annotated[float, Field(ge=10, le=3600)] = 120.0
    #: Time limit of one provider call. Seconds.
    call_deadline_seconds: Annotated[float, Field(gt=0, le=300, validate_default=True)] = 30.0

    @field_validator("hash_key")
    @classmethod
    def _is_long_enough(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < MIN_HASH_KEY:
            raise ValueError(f"must have {MIN_HASH_KEY} characters or more: openssl rand -hex 32")
        return key

    @field_validator("report_recipients")
    @classmethod
    def _are_addresses(cls, addresses: str) -> str:
        if not all(_ADDRESS.fullmatch(one) for one in _split(addresses)):
            raise ValueError("takes addresses separated by commas: ops@example.com,lead@example.com")
        return addresses

    @field_validator("encryption_keys")
    @classmethod
    def _are_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            read_keys(keys.get_secret_value())
        return keys

    @field_validator("call_deadline_seconds")
    @classmethod
    def _fits_into_lease(cls, deadline: float, others: ValidationInfo) -> float:
        lease: float | None = others.data.get("lease_seconds")
        if lease is not None and lease < deadline + LEASE_MARGIN_SECONDS:
            raise ValueError(
                f"must be at least {LEASE_MARGIN_SECONDS:g} s below NOTIFIER_LEASE_SECONDS ({lease:g})"
            )
        return deadline

    #: The contents of notifier.toml. No variable sets it; a variable of this name is an unknown one.
    structure: Annotated[Structure, NoDecode] = Field(
        default_factory=Structure, exclude=True, validation_alias="notifier.toml"
    )

    @field_validator("structure", mode="before")
    @classmethod
    def _is_no_variable(cls, value: object) -> object:
        # A variable or a secret file is text.
        return Structure() if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """First the environment, then secret files, and last a running service."""
        told = (FilledSource(settings_cls, source) for source in (env_settings, file_secret_settings))
        return init_settings, *told, dotenv_settings

    @field_validator("callback_name_servers")
    @classmethod
    def _are_name_servers(cls, text: str) -> str:
        read_name_servers(text)
        return text

    @property
    def report_addresses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_split(self.report_recipients)))

    @property
    def callback_servers(self) -> tuple[tuple[str, int], ...]:
        return read_name_servers(self.callback_name_servers)

    @property
    def callback_hosts(self) -> frozenset[str]:
        return frozenset(map(str.lower, _split(self.callback_allow_hosts)))

    def require(self, name: Literal["database_url", "broker_url"]) -> str:
        """The URL in plain text. Raises `ConfigurationError` if it is not set."""
        value: SecretStr | None = getattr(self, name)
        if value is None:
            variable = f"NOTIFIER_{name.upper()}"
            raise ConfigurationError(
                f"{variable} is not set: export it, or run `notifier up`, which starts its own services",
                setting=variable,
            )
        return value.get_secret_value()

    def provider_tables(self) -> tuple[ProviderTable, ...]:
        """The providers in notifier.toml, or one for each that the environment configures."""
        return self.structure.providers or tuple(self._providers_of_environment())

    def _providers_of_environment(self) -> list[ProviderTable]:
        tables = []
        if self.smtp_url:
            tables.append(self._table("smtp", url=self.smtp_url.get_secret_value()))
        if self.twilio_account_sid and self.twilio_auth_token:
            token = self.twilio_auth_token.get_secret_value()
            tables.append(self._table("twilio", account_sid=self.twilio_account_sid, auth_token=token))
        return tables

    def _table(self, kind: str, **options: str) -> ProviderTable:
        return ProviderTable.model_validate({"name": kind, "kind": kind, **options})

    def provider_options(self, table: ProviderTable, known: Container[str] | None = None) -> dict[str, str]:
        """The table's options, and those of the `known` options that the environment sets for all providers."""
        common: dict[str, str | None] = {
            "public_url": self.public_url,
            "message_id_domain": self.message_id_domain,
            # Only NOTIFIER_TWILIO_API_BASE exists.
            "api_base": getattr(self, f"{table.kind}_api_base", None),
        }
        wanted = {key: value for key, value in common.items() if value and (known is None or key in known)}
        return {**wanted, **table.options}

    def sender(self, name: str | None) -> Sender:
        """The identity of that name, completed from the default identity and from the environment.

        A name that is not configured gives the default identity: a template may name one that only production has.
        """
        senders = self.structure.senders
        default = senders.get(self.structure.default_sender, Sender())
        named = senders.get(name, default) if name else default
        return Sender(
            email=named.email or default.email or self.email_from,
            sms=named.sms or default.sms or self.twilio_from,
        )

    def sender_name(self, name: str | None) -> str:
        return self.structure.sender_name(name)

    def retry(self, lane: Lane) -> LaneRetry:
        return self.structure.retry.get(lane, DEFAULT_RETRIES[lane])


def load_settings(*, use_running: bool = True, **overrides: Any) -> Settings:
    """Read the environment, the secrets folder (`NOTIFIER_SECRETS_DIR`, default /run/secrets) and notifier.toml.

    Settings that are in none of these come from a running `notifier up` of this user, unless `use_running` is off.

    Raises:
        ConfigurationError: names the variable or the line of notifier.toml that is wrong, and the fix.
    """
    files = secret_files()
    _check_secret_files(files)
    try:
        settings = Settings(
            _secrets_dir=secrets_folder() if files else None,
            _env_file=_running_file() if use_running else None,
            **overrides,
        )
    except ValidationError as error:
        raise configuration_error(error, "NOTIFIER_", str.upper) from None
    path = structure_path(settings)
    if path is None:
        return settings
    return settings.model_copy(update={"structure": load_structure(path)})


def _check_secret_files(paths: Iterable[Path]) -> None:
    """Read each file once, because the settings library skips some that it cannot read, and fails on others.

    Raises:
        ConfigurationError: names the file.
    """
    for path in paths:
        prefix, _, name = path.name.lower().partition("_")
        if prefix == "notifier" and name in Settings.model_fields:
            read_secret(path)


def _running_file() -> Path | None:
    path = data_dir() / RUNNING_FILE
    return path if is_own_file(path) and os.access(path, os.R_OK) else None


def structure_path(settings: Settings) -> Path | None:
    """The notifier.toml that is read; None: there is none."""
    here = Path("notifier.toml")
    return settings.config or (here if here.is_file() else None)
