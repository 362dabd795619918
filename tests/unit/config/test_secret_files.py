"""Which files of secrets everybody on the machine can read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from notifier.cli.machine_checks import check_secrets
from notifier.config.secret_files import open_secrets


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Reachable by everybody, which `tmp_path` is not."""
    with TemporaryDirectory(dir="/tmp") as made:
        path = Path(made, "secrets of 'ours'").resolve()
        path.mkdir()
        path.parent.chmod(0o755)
        monkeypatch.setenv("NOTIFIER_SECRETS_DIR", str(path))
        yield path


def write(path: Path, mode: int) -> Path:
    path.write_text("change-me")
    path.chmod(mode)
    return path


def test_what_everybody_can_read_is_named_with_the_fix(folder: Path) -> None:
    for mode in (0o400, 0o440, 0o600, 0o640):
        write(folder / f"CLOSED_{mode:o}", mode)
    assert list(check_secrets()) == []
    opened = write(folder / "NOTIFIER_SMTP_URL", 0o644)
    (folder / "NOTIFIER_HASH_KEY").symlink_to(write(folder.parent / "key", 0o444))
    (folder / "more").mkdir(mode=0o755)
    (check,) = check_secrets()
    assert check.ok
    assert check.detail == f"everybody on this machine can read {folder / 'NOTIFIER_HASH_KEY'}, {opened}"
    _, _, command = check.fix.partition("then: ")
    assert os.system(command) == 0
    assert list(check_secrets()) == []


def test_what_lies_in_a_closed_folder_is_not_open(folder: Path) -> None:
    path = write(folder / "NOTIFIER_SMTP_URL", 0o644)
    assert open_secrets() == [path]
    folder.parent.chmod(0o700)
    assert open_secrets() == []


def test_a_read_only_mount_is_not_judged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "NOTIFIER_SMTP_URL", 0o444)

    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda path: ReadOnly)
    assert open_secrets() == []
