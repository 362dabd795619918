"""Finds the files of templates on disk, reads them whole, and tells whether they have changed."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from notifier.rendering.locales import fallbacks
from notifier.rendering.problems import Severity, TemplateProblem

#: The parts of a template. A mail may have no html.
SUBJECT, TEXT, HTML = "subject.txt", "body.txt", "body.html"
MANIFEST = "template.toml"
#: Larger files are refused. Bytes.
MAX_FILE_BYTES = 512 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SUFFIXES = (".txt", ".html", ".toml")

#: For each file: its name, change time in ns, size, and inode.
Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Source:
    #: Relative to the templates folder, with forward slashes.
    path: str
    #: The locale folder that it is in; "" if it is directly in the template's folder.
    locale: str
    text: str


@dataclass(frozen=True, slots=True)
class Shelf:
    """All files that one template can use: its own, and those in the shared folders of its channel.

    The keys are paths: below the channel's folder for shared files ("_layout/fr/base.html"), below the template's
    folder for its own ("fr/body.txt").
    """

    files: Mapping[str, Source]

    def find(self, name: str, locales: Sequence[str]) -> Source | None:
        """The file of that name in the first locale folder that has it, or outside the locale folders."""
        folder, _, file = name.rpartition("/")
        prefix = f"{folder}/" if folder else ""
        keys = [*(f"{prefix}{locale}/{file}" for locale in locales), name]
        return next((self.files[key] for key in keys if key in self.files), None)

    def locales_of(self, name: str) -> tuple[str, ...]:
        """The locale folders that have a file of that name."""
        folder, _, file = name.rpartition("/")
        return tuple(
            source.locale
            for key, source in self.files.items()
            if source.locale and key == "/".join(filter(None, (folder, source.locale, file)))
        )


def folder_names(channel_folder: Path) -> tuple[str, ...]:
    """The templates of one channel, sorted: every folder whose name begins with a letter or a digit."""
    try:
        found = sorted(channel_folder.iterdir())
    except OSError:  # `folder_problem` reports it
        return ()
    return tuple(path.name for path in found if is_name(path.name) and _is_folder(path))


def folder_problem(root: Path, channel: str) -> TemplateProblem | None:
    """Why no template of the channel can be found; None: there is no problem, even if there are no templates."""
    try:
        os.scandir(root / channel).close()
        (root / channel / "..").stat()  # a folder may be listed although it cannot be entered
    except FileNotFoundError:
        return None
    except OSError as error:
        return TemplateProblem(channel, None, _why_unreadable(error))
    return None


def is_name(text: str) -> bool:
    """Whether it can be the name of a template. Nothing else is ever looked up on disk."""
    return _NAME.fullmatch(text) is not None


def locate(root: Path, channel: str, name: str) -> tuple[Path, ...]:
    """The folders whose files a template can use, its own first; none if there is no such template."""
    channel_folder = root / channel
    own = channel_folder / name
    if not is_name(name) or not _is_folder(own):
        return ()
    try:
        others = sorted(channel_folder.iterdir())
    except OSError:  # `folder_problem` reports it
        others = []
    return (own, *(other for other in others if other.name.startswith("_") and _is_folder(other)))


def sign(folders: Sequence[Path]) -> Signature:
    """A signature that changes when a file in these folders is added, removed or written to. Reads no file."""
    found = []
    for folder in folders:
        for path in _walk(folder):
            try:
                found_as = path.stat()
            except OSError:  # removed since it was listed: the next look sees the rest
                continue
            found.append((str(path), found_as.st_mtime_ns, found_as.st_size, found_as.st_ino))
    return tuple(found)


def changed_at(folders: Sequence[Path]) -> float:
    """When something in these folders was last added, removed or written to, in seconds since 1970. Independent of
    the dates that a copy gave the files."""
    newest = 0.0
    for folder in folders:
        for path in (folder, *(file.parent for file in _walk(folder)), *_walk(folder)):
            try:
                newest = max(newest, path.stat().st_ctime)
            except OSError:  # removed since it was listed, which its folder's date shows
                continue
    return newest


def read(root: Path, folders: Sequence[Path]) -> tuple[Shelf, list[TemplateProblem]]:
    """Read the files of one template. Also returns which files cannot be read."""
    files: dict[str, Source] = {}
    problems = []
    for index, folder in enumerate(folders):
        base = folder if index == 0 else folder.parent
        for path in _walk(folder):
            where, key = path.relative_to(root).as_posix(), path.relative_to(base).as_posix()
            locale = path.parent.name if path.parent != folder else ""
            try:
                files[key] = Source(where, locale, _read_text(path))
            except (OSError, ValueError) as error:
                is_needed = path.name.endswith(_SUFFIXES) or (index == 0 and _is_folder(path))
                severity = Severity.ERROR if is_needed else Severity.WARNING
                problems.append(TemplateProblem(where, None, _why_unreadable(error), severity))
    return Shelf(files), problems


def chain(locale: str, default_locale: str) -> tuple[str, ...]:
    """The locale folders that are searched for an edition's files, best first."""
    return tuple(dict.fromkeys((locale, *fallbacks(locale), *fallbacks(default_locale))))


def _walk(folder: Path, *, deeper: bool = True) -> Iterator[Path]:
    """The files of a folder and its locale folders, sorted, without hidden files and editors' copies. Includes
    entries that should be such a file or folder but cannot be read; `read` says why."""
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        yield folder
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.name.endswith(_SUFFIXES) or not _is_there(path):
            yield path
        elif deeper and _is_folder(path):
            yield from _walk(path, deeper=False)


def _is_folder(path: Path) -> bool:
    """Like `Path.is_dir`, but False if access is denied."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _read_text(path: Path) -> str:
    str(path).encode()
    kind = path.stat().st_mode
    if stat.S_ISDIR(kind):
        os.scandir(path).close()  # it may be listed because it cannot be read
        raise ValueError("is a folder, and a file is expected: rename or remove it")
    if not stat.S_ISREG(kind):
        raise ValueError("is no file that holds text: replace it, or remove it")
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes: split it, or link to what it holds")
    # Some editors on Windows write a byte order mark, which must not get into a subject.
    text = content.decode("utf-8-sig")
    if "\0" in text:
        raise ValueError("holds a null character, which no message can carry: save the file as UTF-8 text")
    return text.replace("\r\n", "\n")


def _why_unreadable(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8: save the file as UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "its name is not UTF-8: rename it"
    if isinstance(error, FileNotFoundError):
        return "a link that leads nowhere, or removed meanwhile: correct or remove it"
    if isinstance(error, NotADirectoryError):
        return "is not a folder: move the file, and make a folder"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a link that leads to itself: correct or remove it"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror}): check its permissions"
    return str(error)
