"""Carries the requests of a `Conversation` to the HTTP API: one class for threads, one for asyncio.

Needs the extra `http`; importing this module does not load it. httpx's time limits apply to each read, so a server
that sends a byte now and then could keep a request open for ever. Here each request has a limit for its whole
answer.
"""

from __future__ import annotations

import atexit
import os
import re
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import copy_context
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from notifier.client.addresses import ApiAddress, ApiSearch, is_of_running_service
from notifier.client.conversations import ApiReply, ApiRequest, Conversation, Pause
from notifier.client.http_faults import lasting_fault
from notifier.domain.errors import ConfigurationError, MissingPackage, add_extra

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Timeout

    import httpx2

_T = TypeVar("_T")
_C = TypeVar("_C", bound="httpx2.Client | httpx2.AsyncClient")

#: Characters that a header can carry.
_KEY = re.compile(r"[!-~]+")


class _Use(Enum):
    """What a connection is used for. Each use has its own connections, so callers that wait keep nobody from
    sending."""

    CALL = "call"
    #: For requests that the service holds.
    HOLD = "hold"
    #: For further requests that wait: the service does not hold them, and they poll now and then.
    POLL = "poll"


#: Maximum connections of a process or event loop. Further requests wait for one, within their own time limit.
_MOST = {_Use.CALL: 100, _Use.HOLD: 100, _Use.POLL: 20}
#: A body adds one second to the limit for every so many bytes, so that a slow line is not taken for a dead one.
_BYTES_PER_SECOND = 100_000


class _Connections(Generic[_C]):
    """The connections of one process or event loop. Those of each use are opened when they are first needed."""

    def __init__(self, make: Callable[..., _C], address: ApiAddress, polls: Any) -> None:
        """`polls` is a semaphore of `_MOST[_Use.POLL]`. Requests queue on it because that is far cheaper than
        httpx's own queue."""
        self._make = make
        self._settings = _settings(address)
        self._clients: dict[_Use, _C] = {}
        self._busy: Counter[_Use] = Counter()
        self._counting, self._making = threading.Lock(), threading.Lock()
        self._free = threading.BoundedSemaphore(_MOST[_Use.HOLD])
        self.polls = polls
        #: Set when the connections are closed.
        self.closed = threading.Event()
        self._answers: set[Future[ApiReply]] = set()

    def use(self, request: ApiRequest) -> _Use:
        """How to carry this request. A request to be held gets its place now; for a poll the caller must take one
        of `polls`. `carrier` gives both back."""
        if request.held_seconds > 0 and self._free.acquire(blocking=False):
            return _Use.HOLD
        return _Use.POLL if request.is_wait else _Use.CALL

    @contextmanager
    def carrier(self, request: ApiRequest, use: _Use) -> Iterator[tuple[_C, ApiRequest]]:
        """The connection for this request, and the request to send on it: not held if the maximum is already
        held."""
        self._count(use, 1)
        try:
            yield self._of(use), request.unheld() if use is _Use.POLL else request
        finally:
            self._count(use, -1)
            if use is _Use.HOLD:
                self._free.release()
            elif use is _Use.POLL:
                self.polls.release()

    @staticmethod
    def crowded() -> ApiReply:
        """The reply for a waiting request that got no turn in time."""
        problem = f"too many other requests wait with this client; it asks for {_MOST[_Use.POLL]} of them at once"
        return ApiReply(problem=problem, is_late=True, is_crowded=True)

    def late(self, request: ApiRequest, seconds: float) -> ApiReply:
        """The reply for a `request` without a whole answer in time. It says whether the request may have waited
        for a connection."""
        use = _Use.POLL if request.is_wait else _Use.CALL
        problem = f"no whole answer within {seconds:.3g} s"
        if self._busy[use] >= _MOST[use]:
            problem += f", with {_MOST[use]} requests or more at once, of which each has a connection"
        return ApiReply(problem=problem, is_late=True)

    def close(self) -> list[_C]:
        """Tell every request that waits that there will be no answer. Returns the connections to close."""
        self.closed.set()
        for answer in list(self._answers):
            _settle(answer, _CLOSED)
        return list(self._clients.values())

    @contextmanager
    def answer(self) -> Iterator[Future[ApiReply]]:
        """A future for one answer, which `close` can fill as well."""
        answer: Future[ApiReply] = Future()
        self._answers.add(answer)
        if self.closed.is_set():
            _settle(answer, _CLOSED)
        try:
            yield answer
        finally:
            self._answers.discard(answer)

    def _count(self, use: _Use, change: int) -> None:
        with self._counting:
            self._busy[use] += change

    def _of(self, use: _Use) -> _C:
        # One at a time: each reads the certificates, and a hundred threads that start together would all read
        # them.
        with self._making:
            client = self._clients.get(use)
            if client is None:
                limits = _httpx2().Limits(max_connections=_MOST[use], max_keepalive_connections=20)
                client = self._clients[use] = self._make(limits=limits, **self._settings)
            return client


#: The reply for requests on connections that were closed. A new conversation opens new connections.
_CLOSED = ApiReply(problem="the client was closed meanwhile", is_closed=True)


class ServiceApi:
    """Runs conversations in threads. Thread-safe. Connections are opened when needed, and again after a fork.
    Every request must end within `timeout_seconds` beyond the time that the service may hold it, plus a second for
    each 100 kB of its body."""

    def __init__(self, find: Callable[[], ApiAddress], timeout_seconds: float) -> None:
        """`find` is called at the first request; what it raises is raised there."""
        self._find = find
        self._timeout_seconds = timeout_seconds
        #: By process id.
        self._connections: dict[int, _Connections[httpx2.Client]] = {}

    def run(self, conversation: Conversation[_T]) -> _T:
        """Run a conversation: return its result, or raise what it raises."""
        step = next(conversation)
        connections = self._opened()
        while True:
            try:
                step = conversation.send(_CLOSED if connections.closed.is_set() else self._do(step, connections))
            except StopIteration as end:
                result: _T = end.value
                return result

    def close(self) -> None:
        """Close the connections. Callers that wait for an answer are told at once."""
        connections = self._connections.pop(os.getpid(), None)
        for client in connections.close() if connections is not None else ():
            client.close()

    def _do(self, step: ApiRequest | Pause, connections: _Connections[httpx2.Client]) -> ApiReply:
        if isinstance(step, Pause):
            connections.closed.wait(step.seconds)
            return ApiReply()
        use = connections.use(step)
        if use is _Use.POLL and not connections.polls.acquire(timeout=step.patience_seconds):
            return connections.crowded()
        place = ExitStack()
        client, request = place.enter_context(connections.carrier(step, use))
        seconds = _limit(request, self._timeout_seconds)
        ends_at = time.monotonic() + seconds

        def ask() -> ApiReply:
            # Released when the request has really ended, which may be after its time limit.
            with place:
                return self._ask(client, request, ends_at)

        try:
            with connections.answer() as answer:
                return _within(seconds, ask, answer)
        except TimeoutError:
            return connections.late(step, seconds)
        except RuntimeError:
            place.close()  # No thread could be started.
            raise

    def _ask(self, client: httpx2.Client, request: ApiRequest, ends_at: float) -> ApiReply:
        try:
            with client.stream(**_arguments(request, self._timeout_seconds)) as answer:
                content = bytearray()
                for part in answer.iter_bytes():
                    content += part
                    if time.monotonic() >= ends_at:
                        raise TimeoutError
                return _reply(answer, bytes(content))
        except _httpx2().PoolTimeout:
            raise TimeoutError from None
        except _httpx2().HTTPError as error:
            return _no_answer(error, str(client.base_url))

    def _opened(self) -> _Connections[httpx2.Client]:
        connections = self._connections.get(os.getpid())
        if connections is None:
            polls = threading.BoundedSemaphore(_MOST[_Use.POLL])
            made = _Connections(_httpx2().Client, self._find(), polls)
            connections = self._connections.setdefault(os.getpid(), made)
        return connections


#: Asks the API that the environment names, for callers without a client. It waits at most 5 s for an answer.
default_api = ServiceApi(ApiSearch().find, 5.0)
atexit.register(default_api.close)


class AsyncServiceApi:
    """Runs conversations in one event loop."""

    def __init__(self, find: Callable[[], ApiAddress], timeout_seconds: float) -> None:
        self._find = find
        self._timeout_seconds = timeout_seconds
        self._connections: _Connections[httpx2.AsyncClient] | None = None
        self._loop: AbstractEventLoop | None = None
        #: The time limits of all requests under way.
        self._limits: set[Timeout] = set()

    async def run(self, conversation: Conversation[_T]) -> _T:
        """Run a conversation: return its result, or raise what it raises."""
        step = next(conversation)
        connections = self._opened()
        while True:
            reply = _CLOSED if connections.closed.is_set() else await self._do(step, connections)
            if reply.status == 0 and connections.closed.is_set():
                reply = _CLOSED
            try:
                step = conversation.send(reply)
            except StopIteration as end:
                result: _T = end.value
                return result

    async def close(self) -> None:
        # Imported here because producers without asyncio need not load it.
        import asyncio

        connections, self._connections = self._connections, None
        clients = connections.close() if connections is not None else []
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            return  # What belongs to another loop ended with that loop, or can only be closed there.
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(loop.time())
        for client in clients:
            await client.aclose()

    @asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        """Raise `TimeoutError` after this time, or when the client is closed."""
        import asyncio

        async with asyncio.timeout(seconds) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    def _opened(self) -> _Connections[httpx2.AsyncClient]:
        import asyncio

        loop = asyncio.get_running_loop()
        if self._connections is None:
            self._loop = loop
            polls = asyncio.Semaphore(_MOST[_Use.POLL])
            self._connections = _Connections(_httpx2().AsyncClient, self._find(), polls)
        elif self._loop is not loop:
            fix = (
                "make one in each, as `async with AsyncClient() as client` in the coroutine that asyncio.run runs"
            )
            raise ConfigurationError(f"this AsyncClient belongs to another event loop: {fix}")
        return self._connections

    async def _do(self, step: ApiRequest | Pause, connections: _Connections[httpx2.AsyncClient]) -> ApiReply:
        import asyncio

        if isinstance(step, Pause):
            with suppress(TimeoutError):
                async with self._within(step.seconds):
                    await asyncio.Event().wait()
            return ApiReply()
        errors, late = _httpx2().HTTPError, (TimeoutError, _httpx2().PoolTimeout)
        use = connections.use(step)
        if use is _Use.POLL:
            try:
                async with self._within(step.patience_seconds):
                    await connections.polls.acquire()
            except TimeoutError:
                return connections.crowded()
        with connections.carrier(step, use) as (client, request):
            seconds = _limit(request, self._timeout_seconds)
            try:
                async with self._within(seconds):
                    answer = await client.request(**_arguments(request, self._timeout_seconds))
            except late:
                return connections.late(step, seconds)
            except errors as error:
                return await asyncio.to_thread(_no_answer, error, str(client.base_url))
        return _reply(answer, answer.content)


def _httpx2() -> Any:
    try:
        import httpx2
    except ModuleNotFoundError:
        raise MissingPackage(f"asking the service over HTTP needs an extra: {add_extra('http')}") from None
    return httpx2


def _settings(address: ApiAddress) -> dict[str, Any]:
    if not isinstance(address.key, str) or not _KEY.fullmatch(address.key):
        raise ConfigurationError(
            "this is not a key of the HTTP API: give ntf_live_…, without blanks or line ends",
            setting="NOTIFIER_API_KEY",
        )
    try:
        headers = {"authorization": f"Bearer {address.key}"}
        return {"base_url": _httpx2().URL(address.url), "headers": headers}
    except _httpx2().InvalidURL:
        raise ConfigurationError(
            "the address of the HTTP API is not a URL: write https://notifier.example.com",
            setting="NOTIFIER_API_URL",
        ) from None


def _arguments(request: ApiRequest, timeout_seconds: float) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.path,
        "params": list(request.query),
        "content": request.body,
        "headers": list(request.headers),
        "timeout": _httpx2().Timeout(timeout_seconds, read=timeout_seconds + request.held_seconds),
    }


def _limit(request: ApiRequest, timeout_seconds: float) -> float:
    """Time limit of the whole request, in seconds."""
    return timeout_seconds + request.held_seconds + len(request.body or b"") / _BYTES_PER_SECOND


def _within(seconds: float, ask: Callable[[], ApiReply], done: Future[ApiReply]) -> ApiReply:
    """Return or raise what `ask` does, or what `done` is filled with before. Raises `TimeoutError` if that takes
    longer than `seconds`. The thread then ends with its connection: a thread that reads cannot be cancelled, and
    httpx does not expose its socket."""

    def run() -> None:
        try:
            _settle(done, ask())
        except BaseException as error:
            _settle(done, error)

    # Not an executor's thread: the interpreter would wait for it before it exits.
    threading.Thread(target=copy_context().run, args=(run,), name="notifier-http", daemon=True).start()
    return done.result(seconds)


def _settle(answer: Future[ApiReply], found: ApiReply | BaseException) -> None:
    """Fill the future, unless it is already filled."""
    with suppress(InvalidStateError):
        answer.set_exception(found) if isinstance(found, BaseException) else answer.set_result(found)


def _reply(answer: httpx2.Response, content: bytes) -> ApiReply:
    seconds = answer.headers.get("retry-after", "")
    return ApiReply(
        answer.status_code,
        content,
        float(seconds) if seconds.isdecimal() else 0.0,
        media_type=answer.headers.get("content-type", "").partition(";")[0].strip().lower(),
    )


def _no_answer(error: Exception, url: str) -> ApiReply:
    if fault := lasting_fault(error, url):
        return ApiReply(problem=fault, is_lasting=True)
    if type(error).__name__ == "ConnectError" and is_of_running_service(url):
        return ApiReply(problem=f"nothing answers at {url}, where a `notifier up` ran: start it again")
    # Only the kind of error: its text may hold the URL, and with it a password.
    is_late = isinstance(error, _httpx2().TimeoutException)
    return ApiReply(problem=f"no answer ({type(error).__name__})", is_late=is_late)
