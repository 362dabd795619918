"""What people type as contexts, maps and times."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import typer

from notifier.cli.arguments import (
    read_context,
    read_id,
    read_id_start,
    read_metadata,
    read_moment,
    read_moment_exactly,
    read_past,
)
from notifier.domain.assumed_channel import by_recipient
from notifier.domain.id_range import IdRange
from notifier.domain.statuses import Channel

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


def test_a_context_is_json_or_pairs_and_later_ones_win() -> None:
    given = read_context(['{"a": 1, "b": 2}', "b=text", "c:=[1]", "d=x=y"])
    assert given.values == {"a": 1, "b": "text", "c": [1], "d": "x=y"}
    assert given.texts == {"b", "d"}


def test_a_context_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "context.json"
    file.write_text('{"name": "Zoë"}', "utf-8")
    assert read_context(["name=Ann", f"@{file}"]).values == {"name": "Zoë"}
    assert not read_context(["name=Ann", f"@{file}"]).texts


@pytest.mark.parametrize("text", ["name", "=x", ":=1", "{", "[1]", "a:=nope", "@/nowhere/at/all.json"])
def test_what_is_no_context_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        read_context([text])


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(typer.BadParameter, match="/dev/zero is larger than 1048576 bytes"):
        read_context(["@/dev/zero"])


def test_a_list_in_a_file_is_no_context(tmp_path: Path) -> None:
    file = tmp_path / "context.json"
    file.write_text("[]")
    with pytest.raises(typer.BadParameter, match="JSON object"):
        read_context([f"@{file}"])


def test_metadata_is_pairs_of_text() -> None:
    assert read_metadata(["a=1", "b="]) == {"a": "1", "b": ""}
    with pytest.raises(typer.BadParameter):
        read_metadata(["a"])


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", datetime(2026, 11, 22, 7, 30, tzinfo=UTC)),
        ("3d", datetime(2026, 11, 19, 9, 30, tzinfo=UTC)),
        ("1w", datetime(2026, 11, 15, 9, 30, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T10:00:00+01:00", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("2026-11-20 10:00:00z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_span_a_day_or_rfc_3339(text: str, moment: datetime) -> None:
    assert read_moment(text, now=NOW, direction=-1) == moment


def test_a_span_may_count_forward() -> None:
    assert read_moment("90m", now=NOW, direction=+1) == datetime(2026, 11, 22, 11, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2h30m", "2026-11-20T10:00:00", "999999w", "2026-13-01"])
def test_what_is_no_moment_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        read_past(text)


def test_a_moment_that_moves_is_refused_where_it_must_stay() -> None:
    assert read_moment_exactly("2026-11-20") == datetime(2026, 11, 20, tzinfo=UTC)
    with pytest.raises(typer.BadParameter, match="a different time in each run"):
        read_moment_exactly("2h")


def test_an_id_must_be_whole() -> None:
    with pytest.raises(typer.BadParameter, match="all 36 characters"):
        read_id("0198")


def test_a_number_is_for_sms() -> None:
    assert by_recipient("+15550100123") is Channel.SMS
    assert by_recipient("ann@example.com") is Channel.EMAIL
    assert by_recipient(None) is Channel.EMAIL


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("0199f3a2-1b2c-7d3e", "0199f3a2-1b2c-7d3e-0000-000000000000", "0199f3a2-1b2c-7d3e-ffff-ffffffffffff"),
        (" 0199F3A21b2 ", "0199f3a2-1b20-0000-0000-000000000000", "0199f3a2-1b2f-ffff-ffff-ffffffffffff"),
        (f"{UUID(int=5)}", f"{UUID(int=5)}", f"{UUID(int=5)}"),
    ],
)
def test_the_beginning_of_an_id_stands_for_all_that_begin_so(text: str, first: str, last: str) -> None:
    assert read_id_start(text) == IdRange(UUID(first), UUID(last))


@pytest.mark.parametrize("text", ["0199f3a", "ann@example.com", f"{UUID(int=5)}0", ""])
def test_what_is_no_beginning_of_an_id_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="as many as `notifier search` shows"):
        read_id_start(text)
