"""How the bytes of a rejected message are shown."""

from __future__ import annotations

from notifier.cli.output import body_lines
from tests.unit.cli.commandline import CommandLine


def test_text_is_shown_with_control_characters_spelled_out() -> None:
    assert body_lines('{"to": "Zoë"}\n\x1b[2J'.encode()) == ['{"to": "Zoë"}', "\\x1b[2J"]
    assert body_lines(b"") == ["(empty)"]


def test_other_bytes_are_dumped() -> None:
    first, second = body_lines(b"\xff\x00" + b"A" * 15)
    assert first == "00000000  ff 00 41 41 41 41 41 41 41 41 41 41 41 41 41 41  ..AAAAAAAAAAAAAA"
    assert second == f"00000010  41{' ' * 45}  A"


def test_without_a_database_looking_is_a_configuration_error(notifier: CommandLine) -> None:
    for command in (["search"], ["rejected", "list"], ["db", "current"]):
        answer = notifier(*command)
        assert answer.code == 2
        assert "NOTIFIER_DATABASE_URL is not set" in answer.err


def test_an_id_that_is_none_is_wrong_usage(notifier: CommandLine) -> None:
    answer = notifier("show", "0198")
    assert answer.code == 2
    assert "36 characters" in answer.err
