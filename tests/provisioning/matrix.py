"""`make matrix`: the tests that brokers and databases matter to, on the oldest and the newest versions of each.

Not every version with every other, but each at least once: Debian's in a Debian of their own
(`tests.provisioning.debian`), those that come as wheels on this machine. The servers themselves say which versions
they are, and a run on others than were meant has failed. A set that cannot be had here is named with the reason,
and is no failure.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.provisioning.debian import CHECKOUT, VENV, Debian
from tests.provisioning.services import MissingService, Services

VERSIONS = "tests/integration/test_server_versions.py"
#: What RabbitMQ, PostgreSQL and Redis or Valkey answer matters to these.
SERVERS = (
    VERSIONS,
    "tests/contract/test_golden_messages.py",
    "tests/contract/test_golden_tasks.py",
    "tests/e2e/test_delivery.py",
    "tests/integration/test_cli_setup.py",
    "tests/integration/test_client_deadline.py",
    "tests/integration/test_engine.py",
    "tests/integration/test_intake.py",
    "tests/integration/test_large_messages.py",
    "tests/integration/test_ledger.py",
    "tests/integration/test_migrations.py",
    "tests/integration/test_partitions.py",
    "tests/integration/test_poison_messages.py",
    "tests/integration/test_producers.py",
    "tests/integration/test_query_plans.py",
    "tests/integration/test_redis_transport.py",
    "tests/integration/test_remote_control.py",
    "tests/integration/test_restored_database.py",
    "tests/integration/test_rights.py",
    "tests/integration/test_worker.py",
)
COLUMNS = ("Python", "PostgreSQL", "RabbitMQ", "Redis or Valkey")
#: In three processes, as `make test`; a report with what a test records about itself.
_PYTEST = ("-m", "pytest", "-q", "-n", "auto", "--dist=worksteal", "-pno:cacheprovider", "-ojunit_family=xunit1")
#: What is kept between runs; the checkout cannot be written to.
_IN_DEBIAN = {"PYTHONPYCACHEPREFIX": "/var/cache/python", "HYPOTHESIS_STORAGE_DIRECTORY": "/var/cache/hypothesis"}


@dataclass(frozen=True, slots=True)
class Versions:
    """One set: where it runs, on what, and which tests."""

    name: str
    #: Component → the version, or its first numbers. Others may be anything.
    expected: Mapping[str, str]
    tests: Sequence[str]
    #: None: this machine, with the Python that runs this.
    debian: Debian | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


_SERVERS = ("rabbitmq-server", "postgresql", "redis-server", "python3", "python3-venv")
BOOKWORM = Debian("bookworm", _SERVERS)
TRIXIE = Debian("trixie", (*_SERVERS, "valkey-server"))

SETS = (
    Versions(
        "oldest",
        {"Python": "3.11", "PostgreSQL": "15", "RabbitMQ": "3.10", "Redis": "7.0"},
        SERVERS,
        BOOKWORM,
        {"NOTIFIER_TEST_REDIS_SERVER": "/usr/bin/redis-server"},
    ),
    Versions(
        "newest",
        {"Python": "3.13", "PostgreSQL": "17", "RabbitMQ": "4", "Valkey": "8"},
        SERVERS,
        TRIXIE,
        {"NOTIFIER_TEST_REDIS_SERVER": "/usr/bin/valkey-server"},
    ),
    Versions("python-3.13", {"Python": "3.13"}, [VERSIONS, "tests/contract", "tests/unit"], TRIXIE),
    Versions(
        "redis-8",
        {"Redis": "8"},
        [*SERVERS, "-k", "redis or versions"],
        TRIXIE,
        {"NOTIFIER_TEST_REDIS_SERVER": "/usr/bin/redis-server"},
    ),
    Versions(
        "wheels",
        {"PostgreSQL": "18", "Valkey": "9"},
        SERVERS,
        environment={"NOTIFIER_TEST_POSTGRES_BIN": "wheel"},
    ),
)


@dataclass(slots=True)
class Result:
    """What became of one set."""

    name: str
    versions: Mapping[str, str] = field(default_factory=dict)
    passed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failed: Sequence[str] = ()
    #: Why it did not run.
    absent: str = ""

    @property
    def cells(self) -> list[str]:
        """A row of the table."""
        versions = [self.versions.get(name, "") for name in COLUMNS[:-1]]
        brokers = (f"{name} {self.versions[name]}" for name in ("Redis", "Valkey") if name in self.versions)
        counts = map(str, (self.passed, len(self.failed), self.skipped))
        return [self.name, *versions, next(brokers, ""), *counts, f"{self.seconds:.0f} s"]


def main() -> int:
    """Run the sets that were asked for, or all; 0: nothing failed."""
    parser = argparse.ArgumentParser(prog="make matrix", description="tests on other versions")
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(one.name for one in SETS))
    wanted = parser.parse_args().sets
    unknown = sorted({*wanted} - {one.name for one in SETS})
    if unknown:
        parser.error(f"no such set: {', '.join(unknown)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = [run(one) for one in SETS if not wanted or one.name in wanted]
    print("\n".join(table(results)))
    return int(any(result.failed for result in results))


def run(one: Versions) -> Result:
    """Make what it needs, run its tests, and read what they say."""
    try:
        if one.debian is not None:
            one.debian.make(say)
        else:
            Services(say).bring()
    except MissingService as missing:
        say(f"{one.name} is absent: {missing}")
        return Result(one.name, absent=str(missing))
    say(f"{one.name}: running")
    with tempfile.TemporaryDirectory(prefix="notifier-matrix-") as name:
        result = _run_tests(one, Path(name) / "report.xml")
    say(f"{one.name}: {result.passed} passed, {len(result.failed)} failed")
    return result


def table(results: Sequence[Result]) -> Iterator[str]:
    """The results as Markdown, with what failed and what was absent below."""
    rows = [["set", *COLUMNS, "passed", "failed", "skipped", "took"]]
    rows += [result.cells for result in results if not result.absent]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
    for result in results:
        for name in result.failed:
            yield f"failed: {result.name}: {name}"
        if result.absent:
            yield f"absent: {result.name}: {result.absent}"


def say(text: str) -> None:
    """One line of progress."""
    print(f"matrix: {text}", flush=True)


def _run_tests(one: Versions, report: Path) -> Result:
    """pytest, whose report is beside the other files of the user's while it runs in a Debian."""
    if one.debian is None:
        command, inside = [sys.executable], report
    else:
        inside = Path("/var/tmp", f"{report.parent.name}.xml")
        report = one.debian.root / inside.relative_to("/")
        command = [f"{VENV}/bin/python"]
    command += [*_PYTEST, f"--junitxml={inside}", *one.tests]
    environment = {**os.environ, **one.environment}
    if one.debian is not None:
        command = one.debian.command(command, {**_IN_DEBIAN, **one.environment})
    # Each test has a limit of its own.
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, check=False)
    try:
        result = read(one.name, report)
    except FileNotFoundError:
        result = Result(one.name)
    report.unlink(missing_ok=True)
    return judged(result, one.expected, done.returncode)


def judged(result: Result, expected: Mapping[str, str], exit_code: int) -> Result:
    """The same, failed also if other versions answered than were meant, or pytest did not come to its end."""
    wrong = []
    for name, version in expected.items():
        answered = result.versions.get(name, "none")
        if not f"{answered}.".startswith(f"{version}."):
            wrong.append(f"{name} {version} was meant, and {answered} answered")
    if exit_code and not result.failed:
        wrong.append(f"pytest ended with {exit_code}")
    return replace(result, failed=[*result.failed, *wrong])


def read(name: str, report: Path) -> Result:
    """The counts of a JUnit report, and the versions that a test of ours wrote into it.

    Raises:
        FileNotFoundError: the tests did not come to their end.
    """
    suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    result = Result(name, seconds=float(suite.attrib["time"]))
    result.versions = {
        one.attrib["name"]: one.attrib["value"] for one in suite.iterfind("testcase/properties/property")
    }
    failed = []
    for case in suite.iterfind("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.attrib['classname']}.{case.attrib['name']}")
        elif case.find("skipped") is not None:
            result.skipped += 1
        else:
            result.passed += 1
    result.failed = failed
    return result


if __name__ == "__main__":
    sys.exit(main())
