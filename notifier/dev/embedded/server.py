"""What the embedded servers share: a folder with one owner, and one process in it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from notifier.dev.processes import FolderLock, ServerProcess, own
from notifier.dev.restarts import HEALTHY_SECONDS, Restarts
from notifier.domain.errors import NotifierError, ServiceUnavailable

#: Pause before each start after several deaths in a row; after the last there is no further start. Seconds.
PAUSES = (0.0, 1.0, 5.0, 15.0)


class EmbeddedServer(ABC):
    """A server in `<data_dir>/<folder>`; `name` is shown to people."""

    def __init__(self, data_dir: Path, folder: str, name: str) -> None:
        self._data_dir = data_dir.expanduser().absolute()
        self.home = self._data_dir / folder
        self._lock = FolderLock(self._data_dir / f"{folder}.lock")
        self.name = name
        self._server: ServerProcess | None = None
        self._restarts = Restarts(PAUSES)
        #: Its URL from the last start.
        self.url = ""

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.is_running()

    def start(self) -> str:
        """Start it, or start it again with its data. Returns its URL.

        Raises:
            ConfigurationError: the folder is in use, cannot be reached, or holds another version's data.
            ServiceUnavailable: the server did not start in time: 60 or 90 s, more on a slow machine.
        """
        own(self._data_dir, self._lock, self.name)
        try:
            self.url = self._start()
        except BaseException:
            self.stop()
            raise
        self._restarts.started(time.monotonic())
        return self.url

    def check(self) -> None:
        """Raises `ServiceUnavailable` if it has ended; the text has the end of its log."""
        if not self.is_running:
            raise ServiceUnavailable(self._obituary())

    def keep(self, died: Callable[[str, float], None]) -> None:
        """Call this periodically. If the server has died, it starts it again with its data, at the same URL.
        `died` is called with its name and the seconds until the restart, which grow if it dies again and again.

        Raises:
            ServiceUnavailable: it does not start, its port or folder is taken by now, or it has died too often in
                a row. All of it is stopped then.
        """
        if self.is_running:
            return
        if self._restarts.due_at is None:
            pause = self._restarts.died(time.monotonic())
            if self._restarts.deaths > len(self._restarts.pauses):
                text = self._obituary(
                    f"{self._restarts.deaths} times in a row, each time within {HEALTHY_SECONDS:g} s of its start "
                )
                self.stop()
                raise ServiceUnavailable(text)
            died(self.name, pause)
        if self._restarts.due_at is not None and time.monotonic() >= self._restarts.due_at:
            self._start_again()

    def _obituary(self, how_often: str = "") -> str:
        """How it ended, what to do, and the end of its log."""
        ending = self._server.ending if self._server else ""
        # In that case its log says nothing about it.
        is_killed = ending == "SIGKILL"
        fix = "find who killed it (a machine short of memory does)" if is_killed else "correct what its log says"
        log = self._server.last_words() if self._server else ""
        return f"{self.name} ended {how_often}({ending}): {fix}, and start this again. {log}"

    def _start_again(self) -> None:
        place = self.url
        self._end_processes()
        try:
            self.url = self._start()
            if self.url != place:
                raise ServiceUnavailable("another program has taken its port: start `notifier up` again")
        except NotifierError as error:
            self.stop()
            raise ServiceUnavailable(f"{self.name} ended, and cannot be started again: {error}") from error
        self._restarts.started(time.monotonic())

    def stop(self) -> None:
        """Shut it down in order, then harder. Safe to repeat."""
        self._end_processes()
        self._lock.release()

    def _end_processes(self) -> None:
        if self._server:
            self._server.stop()
            self._server = None

    @abstractmethod
    def _start(self) -> str:
        """Start the process, and return the URL when it answers."""
