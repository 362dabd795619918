"""What a producer has after reading Celery's guides: an application with a task, and `delay()`.

Publisher confirms are added, which the guides leave out. Without them `delay()` returns before the broker has
anything, and would be compared with a promise that it does not make.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

QUEUE = "celery_guide"

app = Celery("celery_guide", broker=os.environ["BENCH_BROKER_URL"])
app.conf.update(
    task_default_queue=QUEUE, task_ignore_result=True, broker_transport_options={"confirm_publish": True}
)


@app.task(name="send_mail")  # type: ignore[untyped-decorator]
def send_mail(recipient: str, template: str, context: dict[str, Any]) -> None:
    """Never runs: only putting it into the queue is measured."""
