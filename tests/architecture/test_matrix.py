"""What counts as a good run on another version."""

from __future__ import annotations

from pathlib import Path

from tests.provisioning.matrix import SETS, Result, judged, read, table

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="0" failures="1" skipped="1" tests="3" time="12.5">
<testcase classname="tests.integration.test_intake" name="test_one" time="1">
<properties><property name="PostgreSQL" value="15.18" /><property name="Redis" value="7.0.15" /></properties>
</testcase>
<testcase classname="tests.integration.test_intake" name="test_two" time="1"><failure message="no" /></testcase>
<testcase classname="tests.integration.test_intake" name="test_three" time="1"><skipped message="no" /></testcase>
</testsuite></testsuites>"""


def test_the_table_has_what_the_servers_answered_and_what_failed(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    lines = list(table([read("oldest", report), Result("newest", absent="no debootstrap")]))
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        *("oldest", "", "15.18", "", "Redis 7.0.15"),
        *("1", "1", "1", "12 s"),
    ]
    assert lines[3:] == [
        "failed: oldest: tests.integration.test_intake.test_two",
        "absent: newest: no debootstrap",
    ]


def test_a_run_on_another_version_than_was_meant_has_failed() -> None:
    result = Result("oldest", {"PostgreSQL": "15.18", "RabbitMQ": "3.10.8"}, passed=3)
    assert judged(result, {"PostgreSQL": "15", "RabbitMQ": "3.10"}, exit_code=0).failed == []
    assert judged(result, {"PostgreSQL": "17", "Redis": "7"}, exit_code=0).failed == [
        "PostgreSQL 17 was meant, and 15.18 answered",
        "Redis 7 was meant, and none answered",
    ]


def test_a_run_that_ended_before_its_tests_has_failed() -> None:
    assert judged(Result("oldest"), {}, exit_code=2).failed == ["pytest ended with 2"]


def test_each_set_asks_the_servers_for_their_versions() -> None:
    for one in SETS:
        assert any("test_server_versions" in test for test in one.tests)
        assert one.expected
