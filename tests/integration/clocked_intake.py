"""An intake under a clock that a test steps: it does everything that makes an id, once for each line it reads."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from notifier.config.logs import configure
from notifier.config.structure import Structure
from notifier.domain.message import new_id
from notifier.domain.statuses import Channel, Lane, SuppressionReason
from notifier.feedback.suppressions import Suppressions
from notifier.intake.batch import Received
from notifier.intake.service import Intake
from notifier.rendering import Renderer
from notifier.security.recipient_hash import HashKey
from notifier.store.attachments import AttachmentRepository, NewAttachment
from notifier.store.engine import make_engine
from notifier.store.ledger import Ledger
from notifier.store.operator_actions import OperatorActions


def main(database_url: str, templates: str) -> None:
    configure("info", "json")
    engine = make_engine(database_url)
    intake = Intake(Ledger(engine), Renderer(Path(templates)), Structure(), lambda *_: None)
    suppressions = Suppressions(engine, HashKey())
    for line in sys.stdin:
        step = line.strip()
        keyed = {
            "producer": "shop",
            "idempotency_key": step,
            "to": f"{step}@example.com",
            "template": "hello",
            "context": {"name": "Ann"},
        }
        own = {**keyed, "idempotency_key": f"{step}-own", "id": str(new_id())}
        summary = intake.process([_received(keyed), _received(own), _received({"nonsense": step})])
        suppressions.add(
            channel=Channel.EMAIL,
            address=f"{step}@example.org",
            reason=SuppressionReason.MANUAL,
            source="operator:ann",
        )
        AttachmentRepository(engine).add(NewAttachment("shop", f"{step}.txt", "text/plain", step.encode()))
        OperatorActions(engine).begin("ann", "retry", {}, None)
        print(json.dumps([time.time(), summary.accepted, summary.rejected]), flush=True)


def _received(value: dict[str, Any]) -> Received:
    return Received(json.dumps(value).encode(), Channel.EMAIL, Lane.NORMAL)


if __name__ == "__main__":
    main(*sys.argv[1:])
