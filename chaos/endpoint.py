"""The producer's endpoint for status callbacks. It records what it was notified of, and checks the signatures."""

from __future__ import annotations

import base64
import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator
from threading import Lock
from uuid import UUID

from standardwebhooks import Webhook, WebhookVerificationError

from notifier.domain.statuses import FINAL_STATUSES, Status
from tests.support.receiver import Got, Receiver, Say, receiver

SECRET = "whsec_" + base64.b64encode(b"the secret of the fault suite's ").decode()
#: Statuses beside the final ones, so that there are callbacks for nearly every message.
TOLD_TOO = (Status.SENT,)
#: Every status of which the producer is notified.
TOLD = FINAL_STATUSES.union(TOLD_TOO)


class Endpoint:
    """A local HTTP server that answers 204, or 503 while it is `refusing`."""

    def __init__(self, server: Receiver) -> None:
        self._server = server
        self._webhook = Webhook(SECRET)
        self._lock = Lock()
        self._bodies: dict[str, bytes] = {}
        self._told: defaultdict[UUID, set[str]] = defaultdict(set)
        #: Callbacks with a wrong signature, or with an id that was used before with another body.
        self.wrong = 0
        #: Calls that were answered 503.
        self.refused = 0
        server.otherwise = Say(204)
        server.look = self._look

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}/callbacks"

    def refuse(self, *, on: bool) -> None:
        """Answer 503 from now on, or 204 again."""
        self._server.otherwise = Say(503) if on else Say(204)

    def told(self) -> dict[UUID, set[str]]:
        """Notification → the statuses that the endpoint accepted."""
        with self._lock:
            return {id_: set(statuses) for id_, statuses in self._told.items()}

    def _look(self, got: Got, said: Say) -> None:
        # The receiver keeps every request; only this part of them is needed.
        self._server.got.clear()
        with self._lock:
            if said.status != 204:
                self.refused += 1
                return
            try:
                self._webhook.verify(got.body, got.headers)
            except WebhookVerificationError:
                self.wrong += 1
                return
            first = self._bodies.setdefault(got.headers["webhook-id"], got.body)
            self.wrong += first != got.body
            data = json.loads(got.body)["data"]
            self._told[UUID(data["id"])].add(data["status"])


@contextlib.contextmanager
def running_endpoint() -> Iterator[Endpoint]:
    with receiver() as server:
        yield Endpoint(server)
