"""A small disk for the database that can be filled: a tmpfs in a mount namespace of this process alone.

When this process and its children end, in whatever way, the kernel removes the mount together with the namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZE_MIB = 600
_CLONE_NEWNS = 0x00020000


class SmallDisk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        block = b"\0" * (1 << 20)
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while file.write(block) == len(block):
                pass
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while file.write(block[:4096]):
                pass

    def free(self) -> None:
        """Free the space again. Safe to repeat."""
        self._filler.unlink(missing_ok=True)


def enter_private_namespace() -> bool:
    """Hide our mounts from others. Call it before the first thread starts. Returns False if it is not allowed."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare") or libc.unshare(_CLONE_NEWNS) != 0:
        return False
    return _run("mount", "--make-rprivate", "/")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    """Mount a small disk on a new folder; None if that does not work. Call `enter_private_namespace` first."""
    folder.mkdir()
    if not _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=0755", "chaos", str(folder)):
        yield None
        return
    try:
        yield SmallDisk(folder)
    finally:
        if not _run("umount", str(folder)):
            _run("umount", "--lazy", str(folder))


def _run(program: str, *arguments: str) -> bool:
    path = shutil.which(program)
    if path is None:
        return False
    done = subprocess.run([path, *arguments], capture_output=True, check=False)
    return done.returncode == 0
