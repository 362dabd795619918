"""`notifier suppressions`, and what `doctor` says of its hash key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.commandline import CommandLine

KEY = "a key of sixteen or more"


@pytest.fixture
def notifier(database_url: str) -> CommandLine:
    return CommandLine({"database_url": database_url, "hash_key": KEY})


def test_add_show_and_lift_tell_the_whole_story(notifier: CommandLine) -> None:
    assert "never was" in notifier("suppressions", "show", "ann@example.com").err
    added = notifier("suppressions", "add", "Ann <Ann@example.com>", "--reason", "opted_out", "--why", "she rang")
    assert (added.code, "suppressed from now on" in added.err) == (0, True)
    assert "already" in notifier("suppressions", "add", "ann@example.com", "--reason", "opted_out").err
    told = notifier("suppressions", "show", "ann@example.com")
    assert told.out.startswith("suppressed\n")
    assert "active  global: they asked for no more messages (opted_out), by operator:" in told.out
    assert "why: she rang" in told.out
    assert notifier("suppressions", "lift", "ann@example.com", "--scope", "sender:shop").code == 1
    assert notifier("suppressions", "lift", "ann@example.com", "--why", "she rang again").code == 0
    told = notifier("suppressions", "show", "ann@example.com")
    assert told.out.startswith("no longer suppressed\n")
    assert "because: she rang again" in told.out
    assert [one["state"] for one in notifier("suppressions", "show", "ann@example.com", "--json").json] == [
        "lifted"
    ]


def test_list_goes_page_by_page_and_names_nobody(notifier: CommandLine) -> None:
    for number in range(3):
        assert notifier("suppressions", "add", f"+1555010012{number}", "--expires", "90d").code == 0
    page = notifier("suppressions", "list", "--channel", "sms", "--limit", "2")
    assert page.out.count("manual") == 2
    assert "+1555" not in page.out
    before = page.err.partition("--before ")[2].split()[0]
    assert len(notifier("suppressions", "list", "--limit", "2", "--before", before, "--json").json) == 1
    assert "no suppression matches" in notifier("suppressions", "list", "--reason", "complaint").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "ann"), "address: not an e-mail address. Write it as name@example.com."),
        (("add", "+1555"), "address: not an E.164 number."),
        (("add", "ann@example.com", "--scope", "shop"), "scope: is not a scope. Write global, sender:<identity>"),
        (("lift",), "--source, an address, or --other-keys"),
    ],
)
def test_what_is_wrong_is_told_with_its_fix(arguments: tuple[str, ...], said: str) -> None:
    notifier = CommandLine({"database_url": "postgresql://127.0.0.1:1/none"})
    answer = notifier("suppressions", *arguments)
    assert answer.code != 0
    assert said in " ".join(answer.err.replace("│", " ").split())


BAD = b"""address,channel,reason,scope,expires_at
ann@example.com,,opted_out,sender:shop,
ben,,,,
+15550100123,sms,because,everything,2026-11-22
cleo@example.com,,,,2099-01-01T00:00:00Z
dan@example.com,,,,,one too many
\xff@example.com,,,,

"Eve, Esq. <EVE@example.com>",email,complaint,,
"""


def test_an_import_tells_every_bad_line_and_takes_the_others(notifier: CommandLine) -> None:
    tried = notifier("suppressions", "import", "-", "--dry-run", stdin=BAD)
    assert "3 would be added" in tried.out
    answer = notifier("suppressions", "import", "-", "--reason", "hard_bounce", stdin=BAD)
    assert answer.code == 1
    assert answer.out.splitlines() == [
        "line 3: address: not an e-mail address. Write it as name@example.com.",
        "line 4: reason: is not one of hard_bounce, invalid_recipient, opted_out, complaint, unsubscribed, "
        "manual. Use one of them.",
        "line 4: scope: is not a scope. Write global, sender:<identity> or category:<name>.",
        "line 4: expires_at: is not a date and time with an offset. Write it as 2026-11-22T09:30:00Z.",
        "line 6: line: 6 cells, and there are 5 columns. Quote cells that hold the separator.",
        "line 7: line: is not UTF-8. Save the file as UTF-8.",
        "3 added, 0 were there, 0 had ended, 4 bad",
    ]
    again = notifier("suppressions", "import", "-", "--reason", "hard_bounce", "--json", stdin=BAD).json
    assert (again["new"], again["known"], [bad["line"] for bad in again["bad"]]) == (0, 3, [3, 4, 6, 7])
    reasons = {one["reason"] for one in notifier("suppressions", "list", "--json").json}
    assert reasons == {"opted_out", "hard_bounce", "complaint"}
    assert "active" in notifier("suppressions", "show", "eve@example.com").out


def test_a_bare_list_is_taken(notifier: CommandLine) -> None:
    answer = notifier("suppressions", "import", "-", stdin="ann@example.com\n\n+15550100123\r\nben@example.com")
    assert answer.out == "3 added, 0 were there, 0 had ended, 0 bad\n"
    assert "active" in notifier("suppressions", "show", "+15550100123").out


def test_a_wrong_header_row_is_refused_as_a_whole(notifier: CommandLine) -> None:
    answer = notifier("suppressions", "import", "-", stdin="email,reason\nann@example.com,manual\n")
    assert answer.code == 1
    assert "email: is not a column" in answer.err
    assert "address: is missing in the header row" in answer.err


def test_an_export_has_no_address_and_can_be_imported_again(
    notifier: CommandLine, database_url: str, tmp_path: Path
) -> None:
    notifier("suppressions", "add", "ann@example.com", "--reason", "opted_out", "--scope", "sender:shop")
    notifier("suppressions", "add", "+15550100123")
    notifier("suppressions", "lift", "+15550100123")
    file = tmp_path / "all.csv"
    assert "2 suppressions exported" in notifier("suppressions", "export", "--ended", "-o", file).err
    assert "ann@" not in file.read_text()
    assert "1555" not in file.read_text()
    notifier("suppressions", "lift", "ann@example.com", "--scope", "sender:shop")
    answer = notifier("suppressions", "import", file)
    assert answer.out == "1 added, 0 were there, 1 had ended, 0 bad\n"
    [now, before] = notifier("suppressions", "show", "ann@example.com", "--json").json
    assert (now["state"], now["scope"], now["reason"]) == ("active", "sender:shop", "opted_out")
    assert now["detail"].startswith(f"before: {before['source']} since ")
    other = CommandLine({"database_url": database_url, "hash_key": "another key of sixteen"})
    assert "hash_key: is not of our key" in other("suppressions", "import", file).out


def test_doctor_tells_of_a_key_that_is_missing_or_another(notifier: CommandLine, database_url: str) -> None:
    bare = CommandLine({"database_url": database_url})
    assert "! hash key: none is set" in bare("doctor").out
    notifier("suppressions", "add", "ann@example.com")
    assert "✓ hash key: set; its fingerprint is " in notifier("doctor").out
    assert "✗ hash key: some suppressions were made under another key" in bare("doctor").out
    assert bare("suppressions", "lift", "--other-keys", "--why", "lost").code == 0
    assert "✗ hash key" not in bare("doctor").out
