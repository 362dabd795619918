"""Which task messages a worker lets through: those that we publish, and nothing else."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Message
from pydantic import SecretStr

from notifier.config.settings import Settings
from notifier.worker.app import DELIVER, DISPATCH, make_app
from notifier.worker.task_consumer import MAX_TASK_BYTES, MAX_TASK_IDS, TaskConsumer, _problem

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@pytest.fixture(scope="module")
def app() -> Any:
    process: Any = SimpleNamespace(only_callbacks=False, stop=lambda **_: None)
    made = make_app(Settings(broker_url=SecretStr("redis://127.0.0.1:1/0")), process)
    made.finalize()
    return made


def written(app: Any, task: str = DELIVER, args: tuple[Any, ...] = ([ID],)) -> Any:
    return app.amqp.as_task_v2(ID, task, args=args, kwargs={})


def received(headers: Any, body: Any, kind: str = "application/json") -> Message:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(
        encoded, content_type=kind, content_encoding="utf-8", headers=headers, accept={"application/json"}
    )


@pytest.mark.parametrize(("task", "args"), [(DELIVER, ([ID],)), (DELIVER, ([],)), (DISPATCH, ())])
def test_what_we_publish_is_let_through(app: Any, task: str, args: tuple[Any, ...]) -> None:
    message = written(app, task, args)
    assert _problem(received(message.headers, message.body), app.tasks) == ""
    # Redis marks what is given back; tracing adds headers of its own.
    more = {"redelivered": True, "traceparent": "00-1-1-01"}
    assert _problem(received(message.headers | more, message.body), app.tasks) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"task": {"a": 1}},
        {"task": "no.such.task"},
        {"task": "celery.map"},
        {"task": None},
        {"id": None},
        {"id": 5},
        {"id": "x" * 5000},
        {"timelimit": [1, 2]},
        {"timelimit": 5},
        {"timelimit": "x"},
        {"eta": "2026-01-01T00:00:00"},
        {"expires": "soon"},
        {"retries": 5},
        {"group": "g"},
        {"callbacks": [{}]},
        {"chord": {}},
        {"called_directly": True},
        {"argsrepr": 5},
        {"origin": []},
    ],
)
def test_a_header_of_another_kind_is_not(app: Any, change: dict[str, Any]) -> None:
    message = written(app)
    assert _problem(received(message.headers | change, message.body), app.tasks)


@pytest.mark.parametrize(
    "body",
    [
        [[[ID]], {}],
        [[[ID]]],
        [],
        None,
        5,
        "x",
        {"a": 1},
        {"args": [[ID]], "kwargs": {}},
        [[[ID]], {"a": 1}, NOTHING],
        [[[ID]], {}, {"callbacks": ["x"]}],
        [[[ID]], {}, [1]],
        [{}, {}, NOTHING],
        [["x"], {}, NOTHING],
        [[["x"]], {}, NOTHING],
        [[[ID] * (MAX_TASK_IDS + 1)], {}, NOTHING],
        b" " * (MAX_TASK_BYTES + 1),
    ],
)
def test_a_body_of_another_form_is_not(app: Any, body: Any) -> None:
    assert _problem(received(written(app).headers, body), app.tasks)


@pytest.mark.parametrize("queue", ["notify.email.urgent", "notify.dead", "another"])
def test_a_worker_reads_no_other_queue_than_those_of_work(queue: str) -> None:
    with pytest.raises(ValueError, match="queues of work only"):
        TaskConsumer.__new__(TaskConsumer).add_task_queue(queue)


def test_a_process_that_only_calls_back_has_no_other_task() -> None:
    process: Any = SimpleNamespace(only_callbacks=True, stop=lambda **_: None)
    made = make_app(Settings(broker_url=SecretStr("redis://127.0.0.1:1/0")), process)
    assert [name for name in made.tasks if name.startswith("notifier.")] == ["notifier.call_back"]
    made.close()
