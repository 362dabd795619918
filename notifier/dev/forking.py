"""Starts programs within a tenth of a second, by forking a process that has imported everything and done nothing
else.

A forked program has no connections, threads or settings yet. It runs its module or script from the first line to
the end of the interpreter. So it differs from a normal start only in the two seconds of imports that it saves,
which are most of a start's time.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from notifier.dev.processes import die_with_parent
from notifier.domain.errors import ServiceUnavailable

#: What our programs import during their lives; some of it only when it is used.
IMPORTS = (
    "anyio._backends._asyncio",
    "billiard.pool",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.backends.base",
    "celery.beat",
    "celery.concurrency.thread",
    "celery.events.receiver",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "fastapi.staticfiles",
    "kombu.pidbox",
    "kombu.transport.pyamqp",
    "kombu.transport.redis",
    "notifier.api.server",
    "notifier.bootstrap",
    "notifier.cli.app",
    "notifier.cli.services",
    "notifier.client.outbox",
    "notifier.console.app",
    "notifier.feedback.bounce_server",
    "notifier.intake.rabbitmq",
    "notifier.intake.redis",
    "notifier.providers.smtp.provider",
    "notifier.providers.twilio.provider",
    "notifier.telemetry.tracing",
    "notifier.worker.run",
    "psycopg",
    "twilio.rest.api.v2010.account.message",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.h11_impl",
    "uvloop",
)
#: macOS has libraries that a forked process must not use.
_IS_SAFE = sys.platform == "linux"
_LONGEST = 1 << 20
#: Lines of an import error's traceback that are shown: where it is, and what.
_TRACE_LINES = 6
#: On the command line of the forking process: when it ends, its children end.
NONE_OUTLIVES = "--none-outlives"


class ForkServer:
    """The process that forks, and our end of the socket to it. Its methods may be called at once; early calls
    wait.

    It ends with `close`, or with us. Its children then end at once or, with `outlived`, in order.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        imports: Sequence[str] = (),
        *,
        cwd: Path | None = None,
        outlived: bool = False,
    ) -> None:
        """`imports`: modules, by default those of our programs. Modules of packages that are not installed are
        skipped."""
        self._lock = Lock()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = [] if outlived else [NONE_OUTLIVES]
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(far.fileno()), *options, *imports],
                cwd=cwd,
                env=None if environment is None else dict(environment),
                stdin=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[far.fileno()],
                start_new_session=True,
            )

    def launch(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start a program, like `subprocess.Popen`, always in a session of its own. Raises `ServiceUnavailable` if
        the modules cannot be imported; the text says why."""
        return Forked(self, command, **options)

    def wait_until_ready(self) -> None:
        """Raises `ServiceUnavailable` as `launch` does; it is closed then."""
        try:
            with self._lock:
                self._ask(b"{}", [])
        except BaseException:
            self.close()
            raise

    def fork(self, wish: Mapping[str, Any], files: Sequence[int]) -> tuple[int, socket.socket]:
        """Fork. Returns a process id, and the socket on which its end will be reported."""
        line, far = socket.socketpair()
        with far, self._lock:
            try:
                return self._ask(json.dumps(wish).encode(), [far.fileno(), *files]), line
            except BaseException:
                line.close()
                raise

    def close(self) -> None:
        """End it. Safe to repeat."""
        self._line.close()
        self._process.wait()
        self._errors.close()

    def _ask(self, message: bytes, files: Sequence[int]) -> int:
        answer = b""
        # It has already ended, before or after the message.
        with contextlib.suppress(ConnectionError):
            socket.send_fds(self._line, [message], files)
            answer = self._line.recv(64)
        if not answer:
            raise ServiceUnavailable(f"the programs cannot be started:{self._why_not()}")
        return int(answer)

    def _why_not(self) -> str:
        """Why it has ended: the end of its traceback, on lines of its own."""
        self._process.wait()
        self._errors.seek(0)
        trace = self._errors.read().decode(errors="replace").splitlines()
        return "\n".join(["", *trace[-_TRACE_LINES:]])


class Forked(subprocess.Popen[Any]):
    """A child of the forking process, which reports to us how the child ended."""

    _line: socket.socket

    def __init__(self, server: ForkServer, command: Sequence[str | Path], **options: Any) -> None:
        self._server = server
        super().__init__(command, **options)

    def _execute_child(self, *given: Any) -> None:
        asked = inspect.signature(super()._execute_child).bind(*given).arguments  # type: ignore[misc]
        pipes = [asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        theirs = [own if pipe == -1 else pipe for own, pipe in enumerate((pipes[0], pipes[3], pipes[5]))]
        environment = dict(os.environ if asked["env"] is None else asked["env"])
        wish = {
            "command": [str(part) for part in asked["args"]],
            "environment": environment,
            "cwd": str(asked["cwd"] or Path.cwd()),
            "most_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        }
        self.pid, self._line = self._server.fork(wish, theirs)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _internal_poll(self, _deadstate: int | None = None, *_: Any) -> int | None:
        """Replaces the original, which calls `os.waitpid`: passed as an argument until Python 3.12, as an object
        since 3.13."""
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                pid, status = (0, 0) if self.returncode is not None else self._try_wait(os.WNOHANG)
                if pid == self.pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, flags: int) -> tuple[int, int]:
        """Replaces `os.waitpid`."""
        self._line.setblocking(not flags & os.WNOHANG)
        try:
            told = self._line.recv(64)
        except BlockingIOError:
            return 0, 0
        self._line.close()
        # No report: it was killed together with the forking process.
        return self.pid, int(told or signal.SIGKILL)


class ProgramLauncher:
    """Starts programs with the current code: forked where that is safe, otherwise normally. They may outlive it;
    `ServerProcess` takes care of their end."""

    def __init__(self) -> None:
        self._server = _server_of_programs()

    def launch(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start a program, like `subprocess.Popen`."""
        if self._server is not None and can_fork(command):
            # It was killed, or cannot import the modules. The program itself may, or will say why not.
            with contextlib.suppress(ServiceUnavailable):
                return self._server.launch(command, **options)
        return subprocess.Popen(command, **options)

    def renew(self, end_programs: Callable[[], None]) -> None:
        """Use the changed code from now on. `end_programs` ends the programs with the old code, after the new code
        was imported successfully.

        Raises:
            ServiceUnavailable: it cannot be imported; nothing has changed. The text ends with the traceback.
        """
        fresh = _server_of_programs()
        if fresh is not None:
            fresh.wait_until_ready()
        end_programs()
        self.close()
        self._server = fresh

    def close(self) -> None:
        """Safe to repeat."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def __enter__(self) -> ProgramLauncher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _server_of_programs() -> ForkServer | None:
    return ForkServer(outlived=True) if _IS_SAFE else None


def can_fork(command: Sequence[str | Path]) -> bool:
    """Whether the command is a module or a script of this Python, on a system where forking is safe."""
    return _IS_SAFE and _code_of([str(part) for part in command]) is not None


def _code_of(command: Sequence[str]) -> tuple[str, list[str], list[str]] | None:
    """What `python …` runs: a module or the path of a script; its arguments; its warning options. None: something
    else."""
    program, *rest = command
    shown = []
    while rest[:1] == ["-W"]:
        shown.append(rest[1])
        rest = rest[2:]
    is_module = rest[:1] == ["-m"]
    rest = rest[is_module:]
    if program != sys.executable or not rest or rest[0].startswith("-"):
        return None
    return rest[0], rest[1:], shown


def _serve(line: socket.socket, *, ends_children: bool) -> tuple[str, list[str]]:
    """Serve requests. Returns in each child, with what it has to run; the parent ends with the socket."""
    living: dict[int, socket.socket] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(line, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == woken:
                os.read(woken, 4096)
                _tell_ends(living)
                continue
            message, descriptors, _, _ = socket.recv_fds(line, _LONGEST, 4)
            if not message:
                _end(living if ends_children else {})
            if not descriptors:
                line.send(b"0")
                continue
            told = socket.socket(fileno=descriptors[0])
            if pid := os.fork():
                living[pid] = told
                for descriptor in descriptors[1:]:
                    os.close(descriptor)
                line.send(str(pid).encode())
                continue
            # However the parent ends, because nobody else would tell the child to stop.
            die_with_parent(signal.SIGKILL if ends_children else signal.SIGTERM)
            signal.set_wakeup_fd(-1)
            selector.close()
            for one in (line, told, *living.values()):
                one.close()
            os.close(woken)
            os.close(wake)
            return _become(descriptors[1:], **json.loads(message))


def _tell_ends(living: dict[int, socket.socket]) -> None:
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with living.pop(pid) as told:
            # Nobody may be there any more to receive it.
            told.send(str(status).encode(), socket.MSG_NOSIGNAL)


def _end(living: Mapping[int, socket.socket]) -> NoReturn:
    for pid in living:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _become(
    files: Sequence[int], command: list[str], environment: dict[str, str], cwd: str, most_files: tuple[int, int]
) -> tuple[str, list[str]]:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_NOFILE, most_files)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, name, _opened_anew(getattr(sys, name), in_lines=name == "stderr"))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    code = _code_of(command)
    assert code
    name, arguments, shown = code
    for action in shown:
        warnings.simplefilter(action)  # type: ignore[arg-type]
    return name, arguments


def _opened_anew(stream: Any, *, in_lines: bool) -> Any:
    """A new stream on this file. What the old one knows, such as whether it is seekable, is about another file."""
    number = stream.fileno()
    return open(
        number,
        stream.mode,
        encoding=stream.encoding,
        errors=stream.errors,
        buffering=1 if in_lines or os.isatty(number) else -1,
        closefd=False,
    )


def import_all(names: Sequence[str] = IMPORTS) -> None:
    """Import these modules, except those of an extra that is not installed."""
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            # If one of our own modules is missing, that is a mistake.
            if (error.name or "").partition(".")[0] == str(__package__).partition(".")[0]:
                raise


def _main() -> None:
    number, *names = sys.argv[1:]
    ends_children = NONE_OUTLIVES in names
    # Modules stay, and looking for garbage among them takes a fifth of the time of their import.
    gc.disable()
    import_all([name for name in names if name != NONE_OUTLIVES] or IMPORTS)
    # The garbage collector would write to every page that the children share.
    gc.freeze()
    gc.enable()
    name, arguments = _serve(socket.socket(fileno=int(number)), ends_children=ends_children)
    sys.argv = [name, *arguments]
    if name.endswith(".py"):
        sys.path[0] = str(Path(name).parent)
        runpy.run_path(name, run_name="__main__")
    else:
        sys.path[0] = str(Path.cwd())
        runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
