"""Every program ends within its grace, whatever is away, and loses nothing that it had in hand."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from chaos.endings import SHORT_GRACE_SECONDS, Endings, every_case, short_form
from chaos.endings_work import PROGRAMS
from tests.provisioning.databases import Databases
from tests.provisioning.rabbitmq import AmqpServer, PrivateRabbitmq
from tests.provisioning.services import RedisServer

pytestmark = pytest.mark.timeout(180)


def test_every_program_ends_within_its_grace_whatever_is_away(
    tmp_path: Path, databases: Databases, amqp_server: AmqpServer, redis_server: RedisServer
) -> None:
    # One virtual host is not enough for programs that run at the same time.
    is_alone = not isinstance(amqp_server, PrivateRabbitmq)
    with ExitStack() as stack:
        endings = Endings(stack, tmp_path, databases, amqp_server, redis_server, grace_seconds=SHORT_GRACE_SECONDS)
        ended = list(endings.run(short_form(), at_once=1 if is_alone else 20))
    assert [one.line for one in ended if one.problems] == []


def test_the_short_form_is_of_the_long_one_and_has_every_program_that_needs_no_servers_of_its_own() -> None:
    short = short_form()
    assert {case.program for case in short} == PROGRAMS.keys() - {"up"}
    # The signal twice is in the long form for idle programs.
    assert [case.name for case in short if case not in every_case() and case.times == 1] == []
