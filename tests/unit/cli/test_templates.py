"""`notifier templates` on a folder of templates."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.templates import write_template
from tests.unit.cli.commandline import TEMPLATES, CommandLine


@pytest.fixture
def broken(tmp_path: Path) -> CommandLine:
    """A command line whose template `code` has a syntax error."""
    folder = tmp_path / "templates"
    shutil.copytree(TEMPLATES, folder)
    (folder / "sms" / "code" / "body.txt").write_text("fine\n{{ code \n")
    return CommandLine({"templates": folder})


def test_list_is_a_line_each(notifier: CommandLine) -> None:
    header, *rows = notifier("templates", "list").out.splitlines()
    assert header.split("\t")[:3] == ["channel", "name", "locales"]
    assert [row.split("\t")[1] for row in rows] == ["both", "hello", "both", "code"]


def test_list_as_json_has_the_variables(notifier: CommandLine) -> None:
    [code] = [one for one in notifier("templates", "list", "--json").json if one["name"] == "code"]
    assert code["locales"] == ["en", "fr"]
    assert code["variables"]["minutes"]["type"] == "integer"
    assert code["variables"]["code"]["secret"] is True


def test_list_shows_broken_templates_too(broken: CommandLine) -> None:
    assert "broken; run `notifier templates check`" in broken("templates", "list").out


def test_check_is_content_with_good_templates(notifier: CommandLine) -> None:
    answer = notifier("templates", "check")
    assert answer.code == 0, answer.out
    assert "0 errors" in answer.out


def test_check_names_file_and_line_and_exits_1(broken: CommandLine) -> None:
    answer = broken("templates", "check")
    assert answer.code == 1
    assert answer.out.startswith("sms/code/body.txt:")
    assert broken("templates", "check", "hello").code == 0
    assert broken("templates", "check", "--json").json[0]["severity"] == "error"


def test_check_for_spam_names_the_command_that_installs_what_it_needs(
    notifier: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    answer = notifier("templates", "check", "--spam")
    assert answer.code == 2
    assert "sudo apt-get install spamassassin" in answer.err


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("exit 3", "ended with exit code 3, and said nothing. Run `spamassassin --lint`"),
        ("echo 'no rules' >&2; kill -9 $$", "ended with a signal, 9, and said 'no rules'. Run"),
        ("echo NOTIFIER-SCORE 1.2.3", "exit code 0, and said 'NOTIFIER-SCORE 1.2.3'. Run"),
    ],
)
def test_check_for_spam_says_what_spamassassin_answered(
    notifier: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, does: str, said: str
) -> None:
    program = tmp_path / "spamassassin"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    answer = notifier("templates", "check", "--spam")
    assert answer.code == 2
    assert "scored 0 of " in answer.err
    assert said in " ".join(answer.err.split())


def test_check_of_a_template_that_is_not_there_fails(notifier: CommandLine) -> None:
    assert notifier("templates", "check", "nosuch").code == 1


def test_preview_of_an_sms_shows_its_size(notifier: CommandLine) -> None:
    answer = notifier("templates", "preview", "code")
    assert "042137 is your code for 10 minutes." in answer.out
    assert "GSM-7, 1 segment, 35 units, 125 left in the last one; budget 1" in answer.out


def test_preview_names_what_makes_an_sms_dear(notifier: CommandLine) -> None:
    answer = notifier("templates", "preview", "code", "--locale", "fr-CA")
    assert "UCS-2" in answer.out
    assert "because of ê" in answer.out


def test_preview_writes_the_html_to_a_file(notifier: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "hello.html"
    answer = notifier("templates", "preview", "hello", "--sample", "2", "--html", file)
    assert answer.code == 0
    assert "subject   Hello <b>Bob</b>" in answer.out
    assert file.read_text("utf-8").strip() == "<p>Hello &lt;b&gt;Bob&lt;/b&gt;</p>"
    assert str(file) in answer.err


def test_preview_takes_a_context(notifier: CommandLine) -> None:
    shown = notifier("templates", "preview", "code", "-c", "code=1", "-c", "minutes=3", "--json").json
    assert shown["text"] == "1 is your code for 3 minutes."
    assert shown["segments"] == {"encoding": "GSM-7", "count": 1, "units": 29, "left": 131}


def test_preview_tells_what_a_context_lacks(notifier: CommandLine) -> None:
    answer = notifier("templates", "preview", "code", "-c", "code=1")
    assert answer.code == 1
    assert "context.minutes: is missing" in answer.err


def test_preview_asks_for_the_channel_if_both_have_the_name(notifier: CommandLine) -> None:
    assert notifier("templates", "preview", "both").code == 2
    assert notifier("templates", "preview", "both", "--channel", "sms").code == 0


def test_preview_of_what_is_not_there_fails(notifier: CommandLine) -> None:
    assert notifier("templates", "preview", "nosuch").code == 1
    assert notifier("templates", "preview", "hello", "--sample", "9").code == 2


def test_category_and_exemption_are_shown(tmp_path: Path) -> None:
    write_template(tmp_path, "digest", 'category = "digest"\nsuppression_exempt = true\n[[samples]]\nname = "one"')
    notifier = CommandLine({"templates": tmp_path})
    [listed] = notifier("templates", "list", "--json").json
    assert (listed["category"], listed["suppression_exempt"], listed["transactional"]) == ("digest", True, True)
    shown = notifier("templates", "preview", "digest").out
    assert "category    digest" in shown
    assert "suppressed  never for a wish of the recipient's" in shown
