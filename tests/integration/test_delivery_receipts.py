"""Delivery, a Twilio that calls back, and the API on a socket: from the call to the receipt."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from notifier.bootstrap import Services
from notifier.dev.machine import free_port
from notifier.dev.twilio_server import TwilioRule, TwilioServer, running_twilio_server
from notifier.domain.statuses import Status
from notifier.worker.runtime import DeliveryLoop
from tests.support.api import Api
from tests.support.receipts import Texts
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until

#: Twilio takes the message, and its answer is lost; the phone is off.
LOST, OFF = "+15550100123", "+15550100124"
RULES = (TwilioRule(LOST, action="close"), TwilioRule(OFF, final_status="undelivered", error_code=30003))


@contextmanager
def listening(api: Api, port: int) -> Iterator[None]:
    """The API on a socket, in a thread."""
    server = uvicorn.Server(uvicorn.Config(api.app, port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield
    server.should_exit = True
    thread.join(timeout=patient(30))


@pytest.mark.parametrize("is_early", [False, True])
def test_a_callback_settles_an_answer_that_was_lost_and_says_why_another_did_not_arrive(
    database_url: str, tmp_path: Path, is_early: bool
) -> None:
    port = free_port()
    twilio = TwilioServer(RULES, callback_delay_seconds=0 if is_early else 0.05)
    with running_twilio_server(twilio):
        structure = {
            "senders": {"default": {"sms": "+15550100100"}},
            "providers": [
                {
                    "name": "twilio",
                    "kind": "twilio",
                    "account_sid": twilio.account_sid,
                    "auth_token": twilio.auth_token,
                    "api_base": twilio.url,
                }
            ],
        }
        templates = write_templates(tmp_path / "templates")
        api = Api(database_url, templates, structure=structure, public_url=f"http://127.0.0.1:{port}")
        texts = Texts(api.services.engine)
        delivery = DeliveryLoop(Services(api.services.settings))
        with listening(api, port):
            ids = [texts.accept(to=number, context={"code": "4711"})[0] for number in (LOST, OFF)]
            delivery.deliverer.deliver(ids)
            expected = [Status.DELIVERED, Status.UNDELIVERED]
            wait_until(lambda: [texts.status(id_) for id_ in ids] == expected)
        delivery.stop()
        lost, off = (texts.story(id_) for id_ in ids)
        api.close()
    assert twilio.received == 2
    assert [(one.number, one.outcome) for one in lost.attempts] == [(1, "accepted")]
    assert lost.notification.provider_message_id == lost.attempts[0].provider_message_id
    found = off.notification
    assert (found.reason, found.detail, found.due_at) == (
        "unreachable_recipient",
        "undelivered: handset cannot be reached now (code 30003)",
        None,
    )
