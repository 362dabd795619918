"""Checks of `notifier doctor` on producers: for which there is proof, and of what kind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from notifier.broker import topology, user_id
from notifier.broker.stray_messages import stray_messages
from notifier.cli.check_result import Check
from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from notifier.domain.producers import is_matching
from notifier.domain.statuses import Channel
from notifier.intake.producers import check_broker, in_words

if TYPE_CHECKING:
    from notifier.bootstrap import Services
    from notifier.config.settings import Settings

#: How many days back producers without proof are searched for.
LOOKED_BACK_DAYS = 7


def check_producers(services: Services) -> Iterator[Check]:
    settings = services.settings
    if settings.broker_url is None:
        return  # the broker's own check reports it
    url = settings.require("broker_url")
    try:
        check_broker(settings.structure, url)
    except ConfigurationError as error:
        detail, _, fix = str(error).partition("; ")
        yield Check("producers", False, detail, fix)
        return
    detail = in_words(settings.structure, url)
    if topology.is_redis(url):
        fix = "if that is not enough, use RabbitMQ, or the HTTP API, whose keys prove it"
        yield Check("producers", True, detail, fix)
        yield from _check_strays(url)
    else:
        has_proven = any(table.broker_user for table in settings.structure.producers.values())
        fix = "" if has_proven else "set the broker user of each in [producers.<name>] of notifier.toml"
        yield Check("producers", True, detail, fix)
        yield from _check_seen(services)
        yield from _check_own_user(settings, url)
    yield from _check_templates(services)


def _check_strays(url: str) -> Iterator[Check]:
    """Checks for other databases of the same broker to which a producer publishes by mistake."""
    for number, waiting in stray_messages(url).items():
        detail = f"{waiting} messages of producers wait in the broker's database {number}, where no intake reads"
        fix = "correct the number in that producer's URL, or start the intake of that database"
        yield Check("producers", True, detail, fix)


def _check_seen(services: Services) -> Iterator[Check]:
    """Checks for producers that recently published without proof."""
    from notifier.store.producers import unproven_producers
    from notifier.store.schema.revisions import missing_upgrade

    try:
        if missing_upgrade(services.engine) is not None:
            return
        since = services.audit.now() - timedelta(days=LOOKED_BACK_DAYS)
        found = unproven_producers(services.engine, since)
    except (ConfigurationError, ServiceUnavailable):
        return  # the database's own check reports it
    if found:
        more = f" and {len(found) - 20} more" if len(found) > 20 else ""
        detail = f"published without proof in the last {LOOKED_BACK_DAYS} days: "
        fix = "a broker user for each, and its name in [producers.<name>] of notifier.toml"
        yield Check("producers", True, f"{detail}{', '.join(found[:20])}{more}", fix)


def _check_own_user(settings: Settings, url: str) -> Iterator[Check]:
    """Whether the service has its own broker user, which may do everything and vouch for every producer."""
    own = user_id.own_users(url, settings.broker_user)
    owners = {user: name for name, table in settings.structure.producers.items() for user in table.broker_user}
    if "guest" in own:
        fix = "create a user for the service: rabbitmqctl add_user notifier …; then delete guest"
        yield Check("broker user", True, "the service logs in to the broker as guest, as anybody can", fix)
    for user in sorted(own & owners.keys()):
        detail = f"the producer {owners[user]} uses the service's own user {user}, and so may do everything"
        fix = "create a user for each of the two, unless that producer is `notifier send` and `publish`"
        yield Check("broker user", True, detail, fix)
    if owners and not own:
        detail = "the name of the service's user is not known: what an operator replays loses its proof"
        yield Check("broker user", True, detail, "set NOTIFIER_BROKER_USER")


def _check_templates(services: Services) -> Iterator[Check]:
    """Checks for patterns of allowed templates that match none, most likely because of a typing error."""
    names = {name for channel in Channel for name in services.renderer.names(channel)}
    for producer, table in services.settings.structure.producers.items():
        for pattern in table.templates or ():
            if not any(is_matching(name, pattern) for name in names):
                detail = f"the producer {producer} may send {pattern}, but no template matches"
                yield Check("producers", True, detail, f"correct templates of [producers.{producer}]")
