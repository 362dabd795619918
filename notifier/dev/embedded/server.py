"""What the embedded servers share: a folder with one owner, and one process on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from notifier.dev.processes import FolderLock, ServerProcess, own
from notifier.domain.errors import NotifierError, ServiceUnavailable


class EmbeddedServer(ABC):
    """A server on `<data_dir>/<folder>`; `name` is for people."""

    def __init__(self, data_dir: Path, folder: str, name: str) -> None:
        self._data_dir = data_dir.expanduser().absolute()
        self.home = self._data_dir / folder
        self._lock = FolderLock(self._data_dir / f"{folder}.lock")
        self.name = name
        self._server: ServerProcess | None = None
        #: Where it was when it was last started.
        self.url = ""

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.is_running()

    def start(self) -> str:
        """Start it, or start it again on its data. Returns its URL.

        Raises:
            ConfigurationError: if the folder is in use or cannot be reached, or holds another version's data.
            ServiceUnavailable: if the server does not start in time: 60 or 90 s, more on a slow machine.
        """
        own(self._data_dir, self._lock, self.name)
        try:
            self.url = self._start()
        except BaseException:
            self.stop()
            raise
        return self.url

    def start_again(self) -> None:
        """After its death: on its data, at the URL that others have.

        Raises:
            ServiceUnavailable: it does not start, or its place is taken by now. Everything of it is stopped then.
        """
        place = self.url
        self._end_processes()
        try:
            self.url = self._start()
            if self.url != place:
                raise ServiceUnavailable("another program has taken its port: start `notifier up` again")
        except NotifierError as error:
            self.stop()
            raise ServiceUnavailable(f"{self.name} ended, and cannot be started again: {error}") from error

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
        """Start the process, and return the URL once it answers."""
