"""The checks of `notifier doctor`, with what to do about each problem."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from notifier.broker.inspection import Broker, producer_queues, where
from notifier.broker.topology import DEAD, NOTIFY
from notifier.cli.callback_checks import check_callbacks, check_endpoints, check_readers
from notifier.cli.check_result import Check, safely, split_error
from notifier.cli.connection_checks import (
    check_all_sessions,
    check_commits,
    check_connections,
    check_database_tls,
    judge_rights,
)
from notifier.cli.console_checks import check_sign_in
from notifier.cli.machine_checks import check_clock
from notifier.cli.producer_checks import check_producers
from notifier.cli.upkeep_checks import check_heartbeats, check_partitions, check_upkeep
from notifier.domain.errors import ConfigurationError, SendError, ServiceUnavailable, TemplateInvalid
from notifier.domain.statuses import Channel

if TYPE_CHECKING:
    from notifier.bootstrap import Services
    from notifier.cli.operator_services import OperatorServices
    from notifier.config.settings import Settings
    from notifier.config.structure import ProviderTable
    from notifier.rendering import Renderer, Template

#: Time limit for asking one provider. Seconds.
PROVIDER_SECONDS = 5.0
#: A producer whose files use this share of its quota is reported.
FULL = 0.8


def all_checks(services: OperatorServices) -> Iterator[Check]:
    """All checks except the one on settings, which have been read by now."""
    settings = services.settings
    yield from safely("database", lambda: check_database(services))
    yield from safely("broker", lambda: check_broker(settings))
    yield from safely("producers", lambda: check_producers(services))
    yield from safely("templates", lambda: check_all_templates(settings))
    yield from safely("providers", lambda: check_providers_and_senders(services))
    yield from safely("callbacks", lambda: check_callbacks(settings))
    yield from safely("sign-in", lambda: check_sign_in(settings))
    yield from safely("traces", check_traces)


def check_traces() -> Iterator[Check]:
    """Whether the spans that the environment asks for can be made."""
    from notifier.telemetry.tracing import tracing_problem, wanted_exporters

    problem = tracing_problem()
    if problem is not None:
        what, _, fix = problem.rpartition(": ")
        yield Check("traces", True, what, fix)
    elif names := wanted_exporters():
        yield Check("traces", True, f"are exported by {', '.join(names)}")


def check_database(services: OperatorServices) -> Iterator[Check]:
    from notifier.store.connection_pool import STATEMENT_MODE_FIX
    from notifier.store.schema.revisions import missing_upgrade, revisions
    from notifier.store.schema.rights import missing_rights

    try:
        missing = missing_rights(services.engine)
    except ServiceUnavailable as error:
        if STATEMENT_MODE_FIX not in str(error):
            raise
        yield Check("sessions", False, *STATEMENT_MODE_FIX.split(": ", 1))
        return
    version = ".".join(map(str, services.engine.dialect.server_version_info or ()))
    yield Check("database", True, f"PostgreSQL {version} answers")
    if "alembic_version" in missing.tables:
        # In this case it cannot be asked whether it has this version's tables.
        yield judge_rights(missing)
        return
    current, newest = revisions(services.engine)
    lacking = missing_upgrade(services.engine)
    if lacking is not None:
        problem, _, fix = lacking.partition(": ")
        yield Check("tables", False, problem, "notifier db upgrade" if fix.startswith("run ") else fix)
        return
    age = "the newest" if current == newest else f"newer than this version, whose newest is {newest}"
    yield Check("tables", True, f"revision {current}, {age}")
    yield judge_rights(missing)
    yield from safely("clock", lambda: check_clock(services))
    yield from safely("sessions", lambda: check_all_sessions(services))
    yield from safely("database TLS", lambda: check_database_tls(services))
    yield from safely("connections", lambda: check_connections(services))
    yield from safely("commits", lambda: check_commits(services))
    yield from safely("identity", lambda: check_identity(services))
    yield from safely("partitions", lambda: check_partitions(services))
    yield from safely("upkeep", lambda: check_upkeep(services))
    yield from safely("heartbeats", lambda: check_heartbeats(services))
    yield from safely("circuits", lambda: check_circuits(services))
    yield from safely("failures", lambda: check_failures(services))
    yield from safely("hash key", lambda: check_hash_key(services))
    yield from safely("callbacks", lambda: check_endpoints(services))
    yield from safely("suppressions", lambda: check_held_suppressions(services))
    yield from safely("encryption", lambda: check_encryption(services))
    yield from safely("attachments", lambda: check_attachments(services))


def check_identity(services: Services) -> Iterator[Check]:
    """Whether it is still the same database: programs do nothing on another one."""
    from notifier.store.engine import database_verdict

    verdict = database_verdict(services.engine, trusts_failover=services.settings.trust_failover)
    if verdict is None:
        return  # a later version's tables
    if verdict.is_another:
        what, _, fix = verdict.in_words.rpartition(": run ")
        yield Check("identity", False, what, fix.strip("`"))
    elif verdict.current.system_identifier is None:
        detail = "known by its oids alone: this user may not call pg_control_system()"
        yield Check(
            "identity", True, detail, "after a failover or a recovery run `notifier db after-restore` yourself"
        )
    else:
        yield Check("identity", True, "the database is the same as before")


def check_hash_key(services: Services) -> Iterator[Check]:
    """Whether a hash key is set, and is the key of the stored suppressions and notifications."""
    if services.suppressions.has_other_key():
        fix = (
            "set the previous key; if it is lost, run `notifier db reseal --rehash`, import the remaining "
            "addresses again, then `notifier suppressions lift --other-keys`"
        )
        detail = "some suppressions were made under another key: their recipients still get messages"
        yield Check("hash key", False, detail, fix)
    if unfound := services.unfound_by_address():
        yield Check("hash key", False, *unfound)
    if services.hash_key.is_public:
        detail = "none is set: anyone who can read the database can find suppressed numbers by trial"
        fix = "set NOTIFIER_HASH_KEY before production: a change later makes suppressions ineffective"
        yield Check("hash key", True, detail, fix)
    else:
        yield Check("hash key", True, f"set; its fingerprint is {services.hash_key.fingerprint}")


def check_encryption(services: Services) -> Iterator[Check]:
    """Whether personal data is encrypted, with keys that are known."""
    from notifier.store.re_encryption import Resealing, unknown_keys

    keys = services.sealer.key_ids
    missing = unknown_keys(services.engine, services.sealer)
    if missing:
        detail = f"notifications are sealed under keys that are missing: {', '.join(missing)}; they wait"
        yield Check("encryption", False, detail, "add them to NOTIFIER_ENCRYPTION_KEYS, behind the newest")
    if not missing and Resealing(services.engine, services.personal_data).is_wanted():
        detail = "older notifications are not sealed under the first key, or not found by their recipients yet"
        yield Check("encryption", True, detail, "notifier db reseal")
    if not keys:
        detail = "off: recipients and contexts are stored in plain text"
        fix = "put the output of `notifier db new-key` into NOTIFIER_ENCRYPTION_KEYS, then: notifier db reseal"
        yield Check("encryption", True, detail, fix)
    else:
        older = f"; what is older opens under {', '.join(keys[1:])}" if keys[1:] else ""
        yield Check("encryption", True, f"on, under the key {keys[0]}{older}")


def check_attachments(services: Services) -> Iterator[Check]:
    quota = services.settings.attachment_quota_bytes
    uses = services.attachments.storage()
    full = [f"{use.producer} has {use.size / quota:.0%}" for use in uses if use.size >= quota * FULL]
    detail = f"{sum(use.files for use in uses)} files, {sum(use.size for use in uses) / 2**20:.1f} MiB"
    if full:
        detail = f"{detail}; of their quota: {', '.join(full)}; at 100% uploads are refused"
        yield Check(
            "attachments", True, detail, "raise NOTIFIER_ATTACHMENT_QUOTA_BYTES, or lower NOTIFIER_ATTACHMENT_DAYS"
        )
    else:
        yield Check("attachments", True, detail)


def check_broker(settings: Settings) -> Iterator[Check]:
    url = settings.require("broker_url")
    with Broker.connect(url) as broker:
        kind = "Redis-protocol broker" if broker.is_redis else "RabbitMQ"
        yield Check("broker", True, f"{kind} at {where(url)} answers")
        if broker.is_redis:
            yield Check("queues", True, "lists are created on first use")
        else:
            yield from safely("queues", lambda: check_queues(broker))
            if settings.structure.callbacks:
                yield from safely("callbacks", lambda: check_readers(broker))


def check_queues(broker: Broker) -> Iterator[Check]:
    """Checks the queues for producers. Existing queues are declared again, because RabbitMQ refuses if ours
    differ."""
    states = {queue.name: broker.state(queue) for queue in producer_queues()}
    missing = [exchange.name for exchange in (NOTIFY, DEAD) if not broker.exists(exchange)]
    missing += [name for name, state in states.items() if state.messages is None]
    there = [declared for declared in (NOTIFY, DEAD, *producer_queues()) if declared.name not in missing]
    wrong = [found for found in map(broker.mismatch, there) if found]
    if missing:
        yield Check("queues", False, f"missing: {', '.join(dict.fromkeys(missing))}", "notifier queues declare")
    for detail, fix in wrong:
        yield Check("queues", False, detail, fix)
    if not missing and not wrong:
        waiting = sum(state.messages or 0 for state in states.values())
        yield Check("queues", True, f"{len(states)} are as declared, {waiting} messages wait in them")
    dead = states[producer_queues()[-1].name].messages
    if dead:
        fix = "an intake died with each of them; look at them with `notifier queues dead list`, and report it"
        yield Check("dead letters", True, f"{dead} messages were given up by the broker", fix)


def check_all_templates(settings: Settings) -> Iterator[Check]:
    """The same as `notifier templates check`."""
    from notifier.rendering import Renderer, Severity, check_templates

    renderer = Renderer(settings.templates)
    count = sum(len(renderer.names(channel)) for channel in Channel)
    problems = check_templates(settings.templates)
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
        yield Check("templates", False, f"{errors[0]}{more}", "notifier templates check")
    elif not count:
        yield Check("templates", False, f"there are none in {settings.templates}", "set NOTIFIER_TEMPLATES")
    elif problems:
        yield Check("templates", True, f"{count} templates, {len(problems)} warnings", "notifier templates check")
    else:
        yield Check("templates", True, f"{count} templates are valid")


def check_providers_and_senders(services: Services) -> Iterator[Check]:
    """Checks the providers, and a sender for every channel that has providers."""
    tables = services.settings.provider_tables()
    if not tables:
        fix = "set NOTIFIER_SMTP_URL or NOTIFIER_TWILIO_*, or add [[providers]] to notifier.toml"
        yield Check("providers", False, "none is configured: nothing can be sent", fix)
    checks, channels = asyncio.run(_ask_all(services.settings, tables))
    yield from checks
    yield from safely("senders", lambda: check_senders(services, channels))
    yield from safely("receipts", lambda: check_receipts(services.settings))
    if Channel.EMAIL in channels:
        yield from safely("bounces", lambda: check_bounces(services))


def check_circuits(services: OperatorServices) -> Iterator[Check]:
    opened = services.provider_operations.open_circuits()
    for one in opened:
        name = f"sender {one.sender} at {one.provider}" if one.sender else f"circuit of {one.provider}"
        since = f" since {one.since:%Y-%m-%d %H:%M} UTC" if one.since else ""
        said = f": {one.detail}" if one.detail else ""
        yield Check(name, False, f"{one.why}{since}; {one.waiting} wait for it{said}", one.fix)
    if not opened:
        yield Check("circuits", True, "all are closed")
    for view in services.provider_operations.providers():
        if view.state == "paused":
            fix = f"notifier providers resume {view.name}"
            yield Check(f"pause of {view.name}", True, "an operator paused this provider: it is not called", fix)


def check_failures(services: OperatorServices) -> Iterator[Check]:
    from notifier.operations.failed_lately import failed_lately

    found = failed_lately(services.minute_counts)
    for one in found.failing:
        yield Check(f"failures of {one.late.channel}", False, one.why, one.fix)
    if not found.failing:
        yield Check("failures", True, f"{found.failed} failed in the last hour, no large share of a channel")


async def _ask_all(settings: Settings, tables: Sequence[ProviderTable]) -> tuple[list[Check], set[Channel]]:
    """The checks of all providers, made concurrently, and the channels that they serve."""
    channels: set[Channel] = set()
    try:
        checks = await asyncio.gather(*(_ask(settings, table, channels) for table in tables))
    except KeyboardInterrupt:
        # A signal hit one of them and has already ended the loop, which only cancels its tasks. Nobody asks this
        # task how it ended, so any other error would be logged.
        raise asyncio.CancelledError from None
    return list(checks), channels


async def _ask(settings: Settings, table: ProviderTable, channels: set[Channel]) -> Check:
    from notifier.providers import registry

    name = f"provider {table.name}"
    try:
        provider = registry.load(table, settings)
    except ConfigurationError as error:
        return Check(name, False, *split_error(str(error).removeprefix(f"{name}: ")))
    channels.add(provider.channel)
    try:
        # The provider limits the time itself; this guards against one that does not.
        async with asyncio.timeout(PROVIDER_SECONDS + 1):
            return Check(name, True, await provider.check(deadline_seconds=PROVIDER_SECONDS))
    except SendError as error:
        return Check(name, False, str(error), f"check {_setting(table)}, and that the provider is up")
    except TimeoutError:
        return Check(name, False, f"no answer within {PROVIDER_SECONDS:g} s", f"check {_setting(table)}")
    except Exception as error:
        return Check(name, False, f"its code failed: {type(error).__name__}", "report it to its authors")
    finally:
        await provider.close()


def check_senders(services: Services, channels: set[Channel]) -> Iterator[Check]:
    """Checks a sender for every channel that has providers, and the senders that templates name."""
    settings = services.settings
    missing = [channel for channel in sorted(channels) if _address(settings, None, channel) is None]
    for channel in missing:
        yield Check("senders", False, f"{channel} has providers and no sender", _PLACES[channel])
    unknown = list(_check_template_senders(services))
    yield from unknown
    if not missing and not unknown:
        names = ", ".join(sorted(settings.structure.senders)) or "those of the environment"
        yield Check("senders", True, f"identities: {names}; every channel and template has one")


def check_bounces(services: Services) -> Iterator[Check]:
    """Whether returned mails are received, and whether mails to subscribers have an unsubscribe link."""
    settings = services.settings
    if settings.bounce_address is None:
        detail = "are not received: mails stay sent, and dead addresses get more"
        yield Check("bounces", True, detail, "set NOTIFIER_BOUNCE_ADDRESS, and run `notifier bounces`")
    else:
        yield Check("bounces", True, f"come back to {settings.bounce_address}, if `notifier bounces` runs")
    if settings.public_url and not services.hash_key.is_public:
        return
    for template in _templates(services.renderer, Channel.EMAIL):
        if not template.transactional:
            detail = f"mails of the template {template.name} have no link to unsubscribe"
            yield Check("unsubscribing", True, detail, "set NOTIFIER_PUBLIC_URL and NOTIFIER_HASH_KEY")


def check_held_suppressions(services: Services) -> Iterator[Check]:
    found = services.held.stuck()
    if found is not None:
        # What an alarm left is no longer a fault, but somebody still has to decide about it.
        yield Check("suppressions", not found.late.alarms, found.why, found.fix)


def check_receipts(settings: Settings) -> Iterator[Check]:
    from notifier.providers.base import Reports
    from notifier.providers.registry import webhook_kinds

    # A table that cannot be read is reported by the provider's own check.
    for kind, its in webhook_kinds(settings, lambda *_: None).items():
        for provider, options in its.accounts.items():
            missing, name = options.missing_for_webhooks, f"receipts of {provider}"
            if missing is None:
                base = getattr(options, "public_url", None) or settings.public_url
                yield Check(name, True, f"come to {base}/webhooks/{kind}/")
            elif missing == "public_url":
                is_asked = isinstance(its.provider, Reports)
                known = f"{kind.capitalize()} is asked after five minutes" if is_asked else "SMS stay sent"
                fix = "set NOTIFIER_PUBLIC_URL to where providers reach `notifier api`"
                yield Check(name, True, f"cannot arrive: no public URL; {known}", fix)
            else:
                fix = f"set {missing} of {provider}, and turn signing on at the provider"
                yield Check(name, True, f"are refused: without {missing} their sender cannot be verified", fix)


_PLACES = {
    Channel.EMAIL: "add email = … to the default sender in notifier.toml, or set NOTIFIER_EMAIL_FROM",
    Channel.SMS: "add sms = … to the default sender in notifier.toml, or set NOTIFIER_TWILIO_FROM",
}


def _check_template_senders(services: Services) -> Iterator[Check]:
    settings = services.settings
    for channel in Channel:
        for template in _templates(services.renderer, channel):
            sender = template.sender
            if sender is None or sender in settings.structure.senders:
                continue
            detail = f"template {channel}/{template.name} names the sender {sender}, which is not configured"
            # The default identity takes its place, if there is one.
            ok = _address(settings, sender, channel) is not None
            instead = "; mail goes out as the default one" if ok and channel is Channel.EMAIL else ""
            yield Check("senders", ok, detail + instead, f"add [senders.{sender}] to notifier.toml")


def _templates(renderer: Renderer, channel: Channel) -> Iterator[Template]:
    """Templates that can be read; a separate check reports the others."""
    for name in renderer.names(channel):
        try:
            yield renderer.template(channel, name)
        except TemplateInvalid:
            continue


def _address(settings: Settings, sender: str | None, channel: Channel) -> str | None:
    identity = settings.sender(sender)
    return identity.email if channel is Channel.EMAIL else identity.sms


def _setting(table: ProviderTable) -> str:
    variables = {"smtp": "NOTIFIER_SMTP_URL", "twilio": "NOTIFIER_TWILIO_*"}
    return f"[[providers]] {table.name} in notifier.toml, or {variables.get(table.kind, 'what it refers to')}"
