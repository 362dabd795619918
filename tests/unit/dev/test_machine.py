"""Files and folders that are this user's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from notifier.dev.machine import make_data_folder, private_opener, write_private
from notifier.domain.errors import ConfigurationError


def test_a_private_file_replaces_a_link_and_does_not_write_through_it(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "console-key"
    victim.write_text("theirs")
    path.symlink_to(victim)
    (tmp_path / "console-key.part").symlink_to(victim)
    write_private(path, "secret\n")
    assert (victim.read_text(), path.read_text()) == ("theirs", "secret\n")
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_appended_to_is_not_opened_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"), open(tmp_path / "log", "ab", opener=private_opener):
        pass
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("mode", [0o1777, 0o775])
def test_a_data_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(ConfigurationError, match=r"can be written by other users: chmod go-w .*NOTIFIER_DATA_DIR"):
        make_data_folder(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_data_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        make_data_folder(tmp_path)


@pytest.mark.parametrize(("name", "problem"), [("file", "is a file"), ("file/under", "cannot be made")])
def test_a_data_folder_that_cannot_be_one_is_refused_with_the_fix(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=rf"{problem}.*: set NOTIFIER_DATA_DIR to another folder"):
        make_data_folder(tmp_path / name)


def test_a_new_data_folder_is_fine_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_data_folder(tmp_path / "new")
    finally:
        os.umask(before)
    make_data_folder(tmp_path / "new")
