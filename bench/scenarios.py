"""The scenarios: what is measured, in which order, and how much of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench import client_calls, growth, http_requests, latency, scaling, sms, steady
from bench.peers import all_peers
from bench.service import Notifier
from bench.subjects import Ground, Subject
from bench.throughput import GUESSES, Rates, Say, measure_rounds

DELAY_SECONDS = 0.1
WORKERS = (1, 2, 4)
#: Length of one measurement of throughput in a published run.
FULL_SECONDS = 6.0
#: First estimates for a slow server, mails per second.
_SLOW_GUESSES: Mapping[str, float] = {
    "notifier": 1000,
    "celery_naive": 30,
    "celery_tuned": 60,
    "post_office": 80,
    "smtp_source": 3000,
}
_SIZED_GUESSES: Mapping[str, float] = {
    "notifier": 1000,
    "celery_naive": 100,
    "celery_tuned": 250,
    "post_office": 300,
    "smtp_source": 3000,
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: everything follows from the length of one measurement of throughput."""

    seconds: float
    rounds: int
    #: Notifications in the database at the end of the growth.
    rows: int

    @property
    def _share(self) -> float:
        """The share of a full run."""
        return self.seconds / FULL_SECONDS

    @property
    def short(self) -> float:
        """Length of measurements that only have to be compared with each other. Seconds."""
        return self.seconds / 2

    @property
    def steady_seconds(self) -> float:
        """Five minutes in a full run."""
        return self.seconds * 50

    @property
    def growth(self) -> list[int]:
        """Ten thousand, a million and ten million in a full run."""
        return [max(1000, self.rows // 1000), max(2000, self.rows // 10), self.rows]

    @property
    def latency(self) -> latency.Sizes:
        """A thousand messages, and fifty thousand that wait, in a full run."""
        return latency.Sizes(
            idle=max(50, round(1000 * self._share)),
            half_load_seconds=2 * self.seconds,
            bulk=max(1000, round(50_000 * self._share)),
        )


@dataclass(slots=True)
class Results:
    """The results of a run."""

    absent: dict[str, str] = field(default_factory=dict)
    #: Scenario → what went wrong with it.
    failed: dict[str, str] = field(default_factory=dict)
    throughput: dict[str, Rates] = field(default_factory=dict)
    slow: dict[str, Rates] = field(default_factory=dict)
    slow_sized: dict[str, Rates] = field(default_factory=dict)
    sms: Rates | None = None
    workers: dict[str, Rates] = field(default_factory=dict)
    latency: dict[str, dict[str, float]] = field(default_factory=dict)
    steady: dict[str, Any] = field(default_factory=dict)
    growth: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    http: dict[str, Any] = field(default_factory=dict)
    client: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


class Bench:
    """Runs scenarios on the same servers."""

    def __init__(self, ground: Ground, sizes: Sizes, say: Say) -> None:
        self._ground = ground
        self._sizes = sizes
        self._say = say
        self.results = Results()

    @property
    def scenarios(self) -> Mapping[str, Callable[[], None]]:
        """Name → the function that runs it."""
        return {
            "throughput": self._throughput,
            "with_100ms_server": self._slow,
            "sms": self._sms,
            "workers": self._workers,
            "latency": self._latency,
            "steady": self._steady,
            "growth": self._growth,
            "http": self._http,
            "client": self._client,
            "model": self._model,
        }

    def run(self, name: str) -> None:
        """Run one scenario. Errors are noted, so that the rest of the hour is not lost."""
        try:
            self.scenarios[name]()
        except Exception as error:
            self.results.failed[name] = f"{type(error).__name__}: {error}"
            self._say(f"  FAILED: {traceback.format_exc()}")

    def _subjects(self) -> list[Subject]:
        """All subjects that are available here; the others are noted."""
        subjects: list[Subject] = [Notifier(), *all_peers()]
        for subject in subjects:
            why = subject.absent(self._ground)
            if why:
                self.results.absent[subject.name] = why
        return [subject for subject in subjects if subject.name not in self.results.absent]

    def _throughput(self) -> None:
        self.results.throughput = self._rounds(self._subjects(), seconds=self._sizes.seconds, guesses=GUESSES)

    def _slow(self) -> None:
        self._say("  everybody's settings as they were:")
        self.results.slow = self._rounds(
            self._subjects(), seconds=self._sizes.short, guesses=_SLOW_GUESSES, delay=DELAY_SECONDS
        )
        self._say("  everybody with as many connections as such a server needs:")
        self.results.slow_sized = self._rounds(
            self._subjects(), seconds=self._sizes.short, guesses=_SIZED_GUESSES, delay=DELAY_SECONDS, sized=True
        )

    def _sms(self) -> None:
        self.results.sms = sms.measure(
            self._ground, rounds=self._sizes.rounds, seconds=self._sizes.short, say=self._say
        )

    def _workers(self) -> None:
        self.results.workers = self._measure_workers()

    def _measure_workers(self) -> dict[str, Rates]:
        subjects: list[Subject] = [Notifier(name=str(count), workers=count) for count in WORKERS]
        guesses = {subject.name: self._rate() for subject in subjects}
        return self._rounds(subjects, seconds=self._sizes.short, guesses=guesses)

    def _latency(self) -> None:
        self.results.latency = latency.measure(self._ground, self._sizes.latency, rate=self._rate(), say=self._say)

    def _steady(self) -> None:
        self.results.steady = steady.measure(
            self._ground, seconds=self._sizes.steady_seconds, rate=self._rate() / 2, say=self._say
        )

    def _growth(self) -> None:
        self.results.growth, self.results.audit = growth.measure(
            self._ground,
            self._sizes.growth,
            rounds=self._sizes.rounds,
            seconds=self._sizes.short,
            rate=self._rate(),
            say=self._say,
        )

    def _http(self) -> None:
        self.results.http = http_requests.measure(
            self._ground, rounds=self._sizes.rounds, seconds=self._sizes.short, say=self._say
        )

    def _client(self) -> None:
        self.results.client = client_calls.measure(
            self._ground, rounds=self._sizes.rounds, seconds=self._sizes.short, say=self._say
        )

    def _model(self) -> None:
        if not self.results.workers:
            self._say("  first on every core:")
            self._workers()
        self.results.model = scaling.measure(
            self._ground,
            self.results.workers,
            self._measure_workers,
            seconds=self._sizes.short,
            say=self._say,
        )

    def _rate(self) -> float:
        """What the service can handle: as measured in this run, or measured now."""
        if "notifier" not in self.results.throughput:
            self._say("  first what the service can take:")
            self.results.throughput = self._rounds(
                [Notifier()], seconds=self._sizes.seconds, guesses=GUESSES, rounds=1
            )
        return self.results.throughput["notifier"].rate

    def _rounds(
        self,
        subjects: list[Subject],
        *,
        seconds: float,
        guesses: Mapping[str, float],
        delay: float = 0.0,
        sized: bool = False,
        rounds: int | None = None,
    ) -> dict[str, Rates]:
        return measure_rounds(
            self._ground,
            subjects,
            rounds=rounds or self._sizes.rounds,
            seconds=seconds,
            delay_seconds=delay,
            sized=sized,
            guesses=guesses,
            say=self._say,
        )
