"""How long the console's pages take at the server: one request at a time, by somebody who is signed in."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from bench.figures import percentiles
from bench.usage import family_cpu_seconds

#: A page that takes long is requested less often. Seconds.
_MOST_SECONDS = 20.0
_LEAST = 5
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A page, and its fields if it is a form."""

    path: str
    #: None: a GET.
    fields: Mapping[str, str] | None = None
    #: Pause before each request, if the server caches something for that long.
    pause_seconds: float = 0.0


class Visitor:
    """Somebody who is signed in, on one kept-alive connection."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)
        self.cookie = ""
        self._form_token = ""
        answer = self._send(Asked("/sign-in", {"key": key}))
        answer.read()
        self.cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
        found = re.search(r'name="form_token" value="([0-9a-f]+)"', self.ask(Asked("/search")).decode())
        assert found is not None, "the key does not open the console"
        self._form_token = found[1]

    def close(self) -> None:
        """Close the connection. The next request opens a new one."""
        self._connection.close()

    def ask(self, asked: Asked) -> bytes:
        """The complete answer. Raises `RuntimeError` if it is not a page."""
        answer = self._send(asked)
        content = answer.read()
        if answer.status not in (200, 303):
            raise RuntimeError(f"{asked.path}: {answer.status}")
        return content

    def _send(self, asked: Asked) -> http.client.HTTPResponse:
        headers = {"cookie": self.cookie} if self.cookie else {}
        if asked.fields is None:
            self._connection.request("GET", asked.path, headers=headers)
        else:
            headers["content-type"] = "application/x-www-form-urlencoded"
            body = urlencode({"form_token": self._form_token, **asked.fields})
            self._connection.request("POST", asked.path, body, headers)
        return self._connection.getresponse()


def measure(visitor: Visitor, asked: Asked, pids: Mapping[str, int], requests: int) -> dict[str, float]:
    """Milliseconds until the answer is read: p50, p95, max; and each of `pids`' processor time for one request, as
    `cpu_<name>`, which other programs on the machine affect less."""
    visitor.ask(asked)
    times: list[float] = []
    before = {name: family_cpu_seconds(pid) for name, pid in pids.items()}
    until = time.monotonic() + _MOST_SECONDS
    while len(times) < requests and (len(times) < _LEAST or time.monotonic() < until):
        if asked.pause_seconds:
            # The server closes an idle connection.
            visitor.close()
            time.sleep(asked.pause_seconds)
        begun = time.perf_counter()
        visitor.ask(asked)
        times.append((time.perf_counter() - begun) * 1000)
    spent = {
        f"cpu_{name}": round((family_cpu_seconds(pid) - before[name]) * 1000 / len(times), 1)
        for name, pid in pids.items()
    }
    found = percentiles(times)
    return {name: found[name] for name in ("p50", "p95", "max", "count")} | spent
