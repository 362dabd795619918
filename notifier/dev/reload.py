"""`notifier up --reload`: restarts the programs when their code, their templates or notifier.toml change.

Before anything ends, one process imports the new code, and another checks the templates. Then the programs end as
on Ctrl-C: they finish what is in flight, and messages that come in during this are in the record or the broker.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread

from notifier.config.settings import Settings, bundled, load_settings, structure_path
from notifier.dev.forking import ProgramLauncher
from notifier.dev.programs import Programs
from notifier.domain.errors import ConfigurationError, MissingPackage, ServiceUnavailable, add_extra
from notifier.rendering import Severity

_PACKAGE = Path(__file__).parents[1]
#: A program that still runs this long after its start has not failed at once. Seconds.
_SETTLE_SECONDS = 1.0
#: At most this many names are shown; more are counted.
_NAMED = 3


class Reloader:
    """Watches the files. Restarts the programs from the thread that calls `check`."""

    def __init__(
        self,
        settings: Settings,
        programs: Programs,
        launcher: ProgramLauncher,
        stop: Event,
        say: Callable[[str], None],
        complain: Callable[[str], None],
        port: int | None = None,
    ) -> None:
        """Raises `MissingPackage`. `complain` is called with the reason if nothing was restarted, or a program
        does not start. `port` is the API's, if there is one."""
        if find_spec("watchfiles") is None:
            raise MissingPackage(f"--reload needs one more package: {add_extra('embedded')}")
        self._programs = programs
        self._launcher = launcher
        self._stop = stop
        self._say = say
        self._complain = complain
        self._port = port
        self._changed: SimpleQueue[Path] = SimpleQueue()
        self._is_starting = False
        self._ready_at: float | None = None
        self._templates = _Templates(settings.templates)
        folders = [path for path in (_PACKAGE, settings.templates, *_provider_folders()) if path.exists()]
        structure = (structure_path(settings) or bundled("notifier.toml")).absolute()
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        # An editor may replace the file, which only its folder notices.
        for paths, recursive, only in ((folders, True, None), ([structure.parent], False, structure)):
            Thread(target=self._watch, args=(paths, recursive, only), daemon=True).start()

    def check(self) -> None:
        """Restart if something has changed since the last call, and report on the previous restart."""
        changed = sorted(set(self._taken()))
        if changed:
            self._restart(changed)
        elif self._is_starting:
            self._look_at_start()

    def _restart(self, changed: Sequence[Path]) -> None:
        self._say(f"{_named(changed)} changed: the programs start again, once what is in flight is finished")
        try:
            load_settings(use_running=False)
            if broken := self._templates.check(changed):
                self._complain("\n".join(["these templates were broken before, and still are:", *broken]))
            self._launcher.renew(self._programs.stop)
        except (ConfigurationError, ServiceUnavailable) as error:
            # Programs that are starting may have met the fault; `_look_at_start` reports it.
            goes_on = all(self._programs.running.values()) and not self._is_starting
            state = "the programs go on as they were" if goes_on else "nothing is started anew"
            self._complain(f"{state}, because this is wrong: {error}")
            return
        if self._stop.is_set():
            return
        self._programs.start()
        self._is_starting, self._ready_at = True, None

    def _look_at_start(self) -> None:
        """A start has failed when a program has ended, however long the machine takes. It is complete when all are
        running, a moment after the API answers: the other programs do not report that they have started."""
        if not all(self._programs.running.values()):
            self._is_starting = False
            self._programs.leave_ended()
            self._complain(
                f"the changed code does not start: {self._programs.last_words()}\n"
                "Correct it: they start again at the next save."
            )
        elif self._programs.is_ready(self._port):
            now = time.monotonic()
            self._ready_at = self._ready_at or now
            if now - self._ready_at >= _SETTLE_SECONDS:
                self._is_starting = False
                self._say(f"restarted: {', '.join(self._programs.pids)}")

    def _taken(self) -> Iterator[Path]:
        try:
            while True:
                yield self._changed.get_nowait()
        except Empty:
            return

    def _watch(self, paths: Sequence[Path], recursive: bool, only: Path | None) -> None:
        # An extra. It ignores byte code, and the files that editors create.
        from watchfiles import watch

        for changes in watch(*paths, stop_event=self._stop, recursive=recursive, raise_interrupt=False):
            for _, name in changes:
                path = Path(name)
                if only is None or path == only:
                    self._changed.put(path)


class _Templates:
    """Problems of the templates, checked by the code as it is then: changed code may support what a template
    does."""

    def __init__(self, folder: Path) -> None:
        """Begins the first check. Nobody waits for it before there is a second one."""
        self._folder = folder.absolute()
        self._checking: subprocess.Popen[str] | None = self._begin()
        #: Problems that the last check found.
        self._known: set[str] = set()

    def check(self, changed: Iterable[Path]) -> list[str]:
        """Problems that existed before, in templates that the change did not touch.

        Raises:
            ConfigurationError: something else is wrong; the text says what.
        """
        if self._checking is not None:
            self._known = set(self._found(self._checking) or ())
            self._checking = None
        found = self._found(self._begin())
        if found is None:
            return []
        known, self._known = self._known, set(found)
        inside = (path.absolute() for path in changed if path.absolute().is_relative_to(self._folder))
        touched = {path.relative_to(self._folder).parts[:2] for path in inside}
        wrong = [line for line in found if line not in known or Path(line.split(":")[0]).parts[:2] in touched]
        if wrong:
            raise ConfigurationError("\n".join(["templates", *wrong]))
        return found

    def _begin(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "notifier", "templates", "check"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def _found(self, checking: subprocess.Popen[str]) -> list[str] | None:
        """One line for each error. None: the code cannot be imported and printed nothing."""
        lines = checking.communicate()[0].splitlines()
        return [line for line in lines if f": {Severity.ERROR}: " in line] if lines else None


def _provider_folders() -> Iterator[Path]:
    """Folders of providers from other packages."""
    for point in entry_points(group="notifier.providers"):
        spec = find_spec(point.value.partition(".")[0].partition(":")[0])
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        path = origin.parent if origin.name == "__init__.py" else origin
        if path != _PACKAGE:
            yield path


def _named(paths: Iterable[Path]) -> str:
    here = Path.cwd()
    names = [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in paths]
    return (
        ", ".join(names) if len(names) <= _NAMED else f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
    )
