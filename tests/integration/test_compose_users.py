"""The users that docker-compose.yml makes on RabbitMQ, made by its own commands on a node of ours."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import amqp
import pytest
import yaml
from amqp.exceptions import AccessRefused

from notifier.client.client import Client
from tests.profiles import full_only
from tests.provisioning.rabbitmq import AmqpServer, PrivateRabbitmq
from tests.support.brokers import amqp_connection
from tests.unit.cli.commandline import CommandLine
from tests.waiting import patient

COMPOSE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text("utf-8"))
SERVICE = COMPOSE["services"]["broker-users"]


def run(server: PrivateRabbitmq, vhost: str, producers: str) -> subprocess.CompletedProcess[str]:
    """What its container does; the virtual host is ours."""
    [script] = SERVICE["command"]
    # As Compose reads it: $$ is a dollar.
    script = script.replace("$$", "$").replace("-p notifier", f"-p {vhost}")
    environment = server.tool_environment() | {"BROKER_PRODUCERS": producers}
    command = [*SERVICE["entrypoint"], script]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=patient(120), check=False
    )


# Each of RabbitMQ's tools starts an Erlang of its own, for a second of processor time.
@full_only
def test_compose_makes_users_who_may_publish_and_nothing_else(amqp_server: AmqpServer) -> None:
    if not isinstance(amqp_server, PrivateRabbitmq):
        pytest.skip("needs a node of our own")
    url = amqp_server.make_vhost()
    CommandLine({"broker_url": url})("queues", "declare")
    vhost, shop, billing = urlsplit(url).path[1:], f"shop{uuid4().hex[:8]}", f"billing{uuid4().hex[:8]}"
    done = run(amqp_server, vhost, f"{shop}:first {billing}:other")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [f"{user} may publish to the exchange notify" for user in (shop, billing)],
    )
    # Again, with another password: that is how one is changed.
    assert run(amqp_server, vhost, f"{shop}:second {billing}:other").returncode == 0
    own = urlsplit(url)
    as_shop = own._replace(netloc=f"{shop}:second@{own.hostname}:{own.port}").geturl()
    with Client(as_shop, producer="shop") as client:
        client.send("hello", "ann@example.com")
    with amqp_connection(as_shop) as connection, pytest.raises(AccessRefused):
        connection.channel().basic_publish_confirm(
            amqp.Message(b"{}"), "", "notify.email.normal", timeout=patient(10)
        )
    amqp_server.drop_vhost(url)
    for user in (shop, billing):
        amqp_server.drop_user(user)


@pytest.mark.parametrize("producers", ["shop", "shop:", ":secret", "notifier:secret"])
def test_a_slip_in_the_list_of_producers_makes_no_user(amqp_server: AmqpServer, producers: str) -> None:
    if not isinstance(amqp_server, PrivateRabbitmq):
        pytest.skip("needs a node of our own")
    done = run(amqp_server, "none", producers)
    assert (done.returncode, done.stderr.partition(":")[0]) == (1, "BROKER_PRODUCERS")


def test_the_tools_of_compose_reach_the_node_that_it_runs() -> None:
    rabbitmq = COMPOSE["services"]["rabbitmq"]
    assert SERVICE["environment"]["RABBITMQ_NODENAME"] == f"rabbit@{rabbitmq['hostname']}"
    assert SERVICE["image"] == rabbitmq["image"]
    assert [volume.rpartition(":")[0] for volume in SERVICE["volumes"]] == rabbitmq["volumes"]
    assert "-p " + rabbitmq["environment"]["RABBITMQ_DEFAULT_VHOST"] in SERVICE["command"][0]
