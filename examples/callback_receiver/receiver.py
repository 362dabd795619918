"""An endpoint for notifier's status callbacks. `pip install standardwebhooks`, then:

WEBHOOK_SECRET=whsec_… python receiver.py 9000
"""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

#: Notification → (sequence, status). A real receiver keeps this in its database, with the order or the account.
STATUSES: dict[str, tuple[int, str]] = {}


def take(data: dict[str, Any]) -> bool:
    """Keep a status, unless a later one has already come or this is a repetition. Returns whether it is new."""
    known, _ = STATUSES.get(data["id"], (0, ""))
    if data["sequence"] <= known:
        return False
    STATUSES[data["id"]] = (data["sequence"], data["status"])
    return True


class Handler(BaseHTTPRequestHandler):
    """Answers 204 when a callback is kept, 401 if its signature is wrong."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            # Verify the bytes as they came: parsing and rewriting the JSON would change what was signed.
            callback = Webhook(os.environ["WEBHOOK_SECRET"]).verify(body, headers)
        except WebhookVerificationError:
            self._answer(401)
            return
        if callback["type"] == "notification.status" and take(callback["data"]):
            data = callback["data"]
            sys.stdout.write(f"{data['id']} {data['status']} {data['reason'] or ''}\n")
        self._answer(204)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
