"""The lines that a program writes, and those that it does not."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.worker.consumer import consumer
from kombu.message import Message

from notifier.config.logs import CONSUMER_OUTAGE, FIELDS, Outage, configure
from notifier.domain.errors import ServiceUnavailable

CELERY = logging.getLogger("celery.worker.request")


class LostChannel:
    """What is left of a channel when its connection is gone."""

    no_ack_consumers = None

    def basic_ack(self, tag: str, multiple: bool) -> None:
        raise ConnectionResetError("by peer")

    def basic_reject(self, tag: str, requeue: bool) -> None:
        raise ConnectionResetError("by peer")


pytestmark = pytest.mark.usefixtures("restored_logging")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("lose", [Message.ack_log_error, Message.reject_log_error])
def test_a_lost_acknowledgement_is_one_calm_line(lose: Any, capsys: pytest.CaptureFixture[str]) -> None:
    configure(style="json", program="worker")
    lose(Message(channel=LostChannel(), delivery_tag="tag-1"), CELERY, (OSError,))
    (line,) = lines(capsys)
    assert (line["event"], line["level"]) == ("worker.acknowledgement_lost", "info")
    assert line["error"] == "ConnectionResetError"
    assert line.keys() <= FIELDS


@pytest.mark.parametrize(
    ("error", "event", "has_trace"),
    [
        (ServiceUnavailable("the database cannot be used now: OperationalError"), "worker.task_not_done", False),
        (RuntimeError("a bug"), "Task notifier.sweep", True),
    ],
)
def test_a_task_without_its_database_is_one_line_and_a_bug_has_a_trace(
    error: Exception, event: str, has_trace: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    app = Celery("test", broker="memory://", set_as_current=False)

    @app.task(name="notifier.sweep", shared=False)  # type: ignore[untyped-decorator]
    def sweep() -> None:
        raise error

    configure(style="json", program="worker")
    assert sweep.apply().state == "FAILURE"
    (line,) = lines(capsys)
    assert (line["event"].startswith(event), "exception" in line) == (True, has_trace)
    if not has_trace:
        assert (line["step"], line["reason"], line["level"]) == ("notifier.sweep", str(error), "warning")


def test_whatever_else_celery_says_of_a_task_stays(capsys: pytest.CaptureFixture[str]) -> None:
    configure(style="json")
    CELERY.critical("Couldn't %s", "breathe")
    (line,) = lines(capsys)
    assert (line["event"], line["level"]) == ("Couldn't breathe", "critical")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_line_that_a_full_disk_does_not_take_is_lost_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    [handler] = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    # Without a buffer: nothing is left to be written when it is closed.
    with Path("/dev/full").open("wb", buffering=0) as disk, io.TextIOWrapper(disk, write_through=True) as full:
        handler.setStream(full)
        logging.getLogger("shop").warning("a line")
    assert capsys.readouterr().err == ""


def test_an_outage_is_said_once_and_its_end_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure(style="json")
    outage = Outage("beat.broker_away", "beat.broker_back")
    outage.is_over()
    for error in (ConnectionResetError(), ConnectionRefusedError(), ConnectionRefusedError()) * 5:
        outage.goes_on(error, reason="away")
    for _ in range(3):
        outage.is_over()
    outage.goes_on(ConnectionRefusedError())
    assert [(line["event"], line.get("error")) for line in lines(capsys)] == [
        ("beat.broker_away", "ConnectionResetError"),
        ("beat.broker_away", "ConnectionRefusedError"),
        ("beat.broker_back", None),
        ("beat.broker_away", "ConnectionRefusedError"),
    ]


def test_what_celery_says_at_each_try_to_connect_is_one_line_for_each_outage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(style="json", program="worker")
    logger = logging.getLogger(consumer.__name__)
    for _ in range(5):
        logger.error(
            consumer.CONNECTION_ERROR, "amqp://broker", OSError("refused"), consumer.CONNECTION_RETRY_STEP
        )
        logger.warning("%s (%r)", consumer.CONNECTION_RETRY, OSError("closed"))
        logging.getLogger("py.warnings").warning("%s", consumer.CANCEL_TASKS_BY_DEFAULT)
    [line] = lines(capsys)
    assert (line["event"], line["error"], line["reason"]) == ("worker.broker_away", "OSError", "refused")
    CONSUMER_OUTAGE.is_over()
    [line] = lines(capsys)
    assert line["event"] == "worker.broker_back"
