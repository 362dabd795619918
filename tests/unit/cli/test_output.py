"""How values are printed."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from notifier.cli.output import as_json, clean, one_line, print_table, utc
from notifier.domain.statuses import Status
from notifier.store.search import Count

MOMENT = datetime(2026, 11, 22, 10, 30, 1, 250_000, tzinfo=timezone(timedelta(hours=1)))


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_json_has_rfc_3339_times_and_ids_as_text() -> None:
    value = {"at": MOMENT, "id": UUID(int=1), "status": Status.SENT, "count": Count("sms", "sent", 2), "n": None}
    assert as_json(value) == {
        "at": "2026-11-22T09:30:01.250000Z",
        "id": "00000000-0000-0000-0000-000000000001",
        "status": "sent",
        "count": {"channel": "sms", "status": "sent", "count": 2},
        "n": None,
    }


def test_bytes_are_text_if_they_can_be() -> None:
    assert as_json("ä".encode()) == {"encoding": "utf-8", "text": "ä"}
    assert as_json(b"\xff") == {"encoding": "base64", "text": "/w=="}


def test_times_are_utc() -> None:
    assert utc(MOMENT) == "2026-11-22 09:30:01"
    assert utc(MOMENT, milliseconds=True) == "2026-11-22 09:30:01.250"
    assert utc(None) == ""


def test_control_characters_are_spelled_out() -> None:
    assert clean("a\x1b[31m\u202eb\nc\td") == "a\\x1b[31m\\u202eb\nc\td"
    assert one_line("a\nb\tc 中") == "a\\nb\\tc 中"


def test_a_pipe_gets_tabs_and_whole_cells(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("id", "why"), [("1", "x" * 300)])
    assert capsys.readouterr().out == f"id\twhy\n1\t{'x' * 300}\n"


@pytest.mark.parametrize(("columns", "has_producer"), [("60", False), ("100", True)])
def test_a_narrow_terminal_gets_fewer_columns(
    columns: str, has_producer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", screen)
    row = (str(UUID(int=1)), "ann@example.com", "shop-of-the-corner")
    print_table(("id", "to", "producer"), [row], droppable=("producer",))
    assert row[0] in screen.getvalue()
    assert ("producer" in screen.getvalue()) is has_producer


@pytest.mark.parametrize(("columns", "shown"), [("60", 20), ("100", 36)])
def test_a_narrow_terminal_gets_as_much_of_each_id_as_tells_them_apart(
    columns: str, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", screen)
    ids = [f"0199f3a2-1b2c-7d3e-{digit}000-00000000000{digit}" for digit in "89"]
    print_table(("id", "why"), [(id_, "an unknown recipient, they say") for id_ in ids], shortens_ids=True)
    assert [line.split()[0] for line in screen.getvalue().splitlines()[1:]] == [id_[:shown] for id_ in ids]


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", screen)
    print_table(("status",), [("sent",)], {0: ["green"]})
    assert "\x1b[32m" not in screen.getvalue()


def test_times_of_another_zone_are_converted() -> None:
    assert as_json(MOMENT) == as_json(MOMENT.astimezone(UTC))
