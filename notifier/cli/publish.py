"""`notifier publish`: a file of messages, shown as it goes."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO, assert_never

import typer

from notifier.cli.arguments import read_context, read_metadata, read_moment_exactly
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.output import AsJson, clean, console, hint, is_terminal, print_json, print_line, warn
from notifier.domain.errors import PublishFailed
from notifier.domain.statuses import Channel, Lane

if TYPE_CHECKING:
    from notifier.cli.batch_publisher import BadLine, Progress, Publishing
    from notifier.cli.message_files import Line

#: Bad lines shown to people; `--errors` and `--json` have them all.
SHOWN_BAD_LINES = 20


class Format(StrEnum):
    """How a file is written."""

    CSV = "csv"
    JSONL = "jsonl"


_FORMATS = {".csv": Format.CSV, ".tsv": Format.CSV, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL}


def publish(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="A .csv, .jsonl or .ndjson file; - is standard input.", show_default=False)
    ],
    channel: Annotated[
        Channel | None, typer.Option(help="For lines that say none. Default: sms for a number, else email.")
    ] = None,
    lane: Annotated[Lane, typer.Option(help="For lines that say none.")] = Lane.BULK,
    template: Annotated[str | None, typer.Option(help="For lines that say none.")] = None,
    producer: Annotated[str, typer.Option(help="Who sends it.")] = "cli",
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            "-c",
            metavar="JSON|@FILE|NAME=TEXT|NAME:=JSON",
            help="Variables for every line; a line's own come first.",
        ),
    ] = None,
    locale: Annotated[str | None, typer.Option(help="For lines that say none.")] = None,
    sender: Annotated[str | None, typer.Option(help="For lines that say none.")] = None,
    reply_to: Annotated[str | None, typer.Option(help="For lines that say none.")] = None,
    reference: Annotated[str | None, typer.Option(help="For lines that say none.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="NAME=TEXT", help="For every line.")] = None,
    send_at: Annotated[
        datetime | None,
        typer.Option(parser=read_moment_exactly, metavar="TIME", help="For lines that say none: RFC 3339."),
    ] = None,
    expires_at: Annotated[
        datetime | None,
        typer.Option(parser=read_moment_exactly, metavar="TIME", help="For lines that say none: RFC 3339."),
    ] = None,
    written_as: Annotated[
        Format | None, typer.Option("--format", help="Default: by the file's name; jsonl for -.")
    ] = None,
    errors: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every bad line there, as JSON lines.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a file of messages: CSV, or one JSON object a line.

    Bad lines are reported and passed over. Publishing the same file again sends nothing twice.
    """
    from notifier.cli.batch_publisher import Defaults, Publishing
    from notifier.cli.template_types import Typist

    variables = read_context(values or ())
    fields = {
        "template": template,
        "context": variables.values or None,
        "locale": locale,
        "sender": sender,
        "reply_to": reply_to,
        "reference": reference,
        "metadata": read_metadata(metadata or ()) or None,
        "send_at": send_at,
        "expires_at": expires_at,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    written = _format(file, written_as)
    world = wiring(context)
    with ExitStack() as stack:
        text = stack.enter_context(_opened(file, written))
        bad_lines = BadLines(stack.enter_context(_written(errors)) if errors else None, keep_all=as_json)
        settings = world.settings()
        client = stack.enter_context(world.client(settings, producer))
        defaults = Defaults(producer, channel, lane, given, variables.texts)
        publishing = Publishing(client, defaults, bad_lines.add, Typist(settings.templates).typed)
        end = Ending(file, publishing.progress, bad_lines, errors, as_json=as_json)
        _run(publishing, text, written, end, hidden=as_json)
    if publishing.progress.failed:
        raise typer.Exit(FAILED)


def _run(publishing: Publishing, text: io.TextIOWrapper, written: Format, end: Ending, *, hidden: bool) -> None:
    """Publish it all, and say how far it came."""
    from notifier.cli.message_files import UnreadableFile

    try:
        with progress_bar(text, hidden=hidden) as show:
            for progress in publishing.run(_read(text, written)):
                show(progress)
    except UnreadableFile as error:
        raise typer.BadParameter(str(error), param_hint="FILE") from None
    except (PublishFailed, KeyboardInterrupt):
        end.tell()
        raise
    end.tell()


class BadLines:
    """Where bad lines go: the first of them to people, all of them into `--errors` and the JSON."""

    def __init__(self, file: TextIO | None, *, keep_all: bool) -> None:
        self._file = file
        self._keep_all = keep_all
        self.kept: list[BadLine] = []

    def add(self, bad: BadLine) -> None:
        """Take one."""
        if self._file:
            self._file.write(json.dumps(bad.as_dict(), ensure_ascii=False) + "\n")
        if self._keep_all or len(self.kept) < SHOWN_BAD_LINES:
            self.kept.append(bad)


class Ending:
    """What is said at the end, however it came."""

    def __init__(
        self, file: Path, progress: Progress, bad: BadLines, errors: Path | None, *, as_json: bool
    ) -> None:
        self._file, self._progress, self._bad, self._errors = file, progress, bad, errors
        self._as_json = as_json

    def tell(self) -> None:
        """Say it."""
        progress = self._progress
        if self._as_json:
            counts = {"complete": progress.complete, "read": progress.read, "sent": progress.sent}
            bad = [line.as_dict() for line in self._bad.kept]
            print_json({**counts, "failed": progress.failed, "errors": bad})
            return
        self._tell_bad_lines()
        print_line(f"{progress.read} lines read: {progress.sent} published, {progress.failed} not")
        if not progress.complete:
            hint("It stopped before the end of the file. Run the same command again: nothing is sent twice.")
        elif progress.failed:
            hint("next: correct those lines and run the same command again; nothing is sent twice")
            hint("What the service refuses later, as a missing variable, is in: notifier rejected list")
        elif progress.sent:
            hint("Running it again would send nothing twice.")
            hint("next: notifier search; what the service refuses, as a missing variable: notifier rejected list")

    def _tell_bad_lines(self) -> None:
        for bad in self._bad.kept:
            for fault in bad.faults:
                warn(f"{self._file}:{bad.line}: {clean(str(fault))}")
        more = self._progress.failed - len(self._bad.kept)
        if more > 0:
            where = f"all are in {self._errors}" if self._errors else "--errors FILE writes down all of them"
            warn(f"… and {more} more bad lines; {where}")


@contextmanager
def progress_bar(text: io.TextIOWrapper, *, hidden: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, nothing elsewhere. Yields what to call after each chunk."""
    if hidden or not is_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    raw: Any = text.buffer
    size = _size(raw)
    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}")]
    if size:
        columns += [BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn()]
    with Bar(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task("publishing", total=size)

        def show(progress: Progress) -> None:
            words = f"{progress.sent} published" + (f", {progress.failed} bad" if progress.failed else "")
            bar.update(task, description=words, completed=raw.tell() if size else progress.read)

        yield show


def _size(raw: BinaryIO) -> int | None:
    """Bytes of the file, None for a pipe."""
    if not raw.seekable():
        return None
    here = raw.tell()
    size = raw.seek(0, io.SEEK_END)
    raw.seek(here)
    return size


def _format(file: Path, written_as: Format | None) -> Format:
    found = written_as or (Format.JSONL if str(file) == "-" else _FORMATS.get(file.suffix.lower()))
    if found is None:
        raise typer.BadParameter(f"{file} is neither .csv nor .jsonl; say which with --format", param_hint="FILE")
    return found


def _read(text: TextIO, found: Format) -> Iterator[Line]:
    from notifier.cli.message_files import read_csv, read_json_lines

    match found:
        case Format.CSV:
            return read_csv(text)
        case Format.JSONL:
            return read_json_lines(text)
        case _:
            assert_never(found)


@contextmanager
def _opened(file: Path, found: Format) -> Iterator[io.TextIOWrapper]:
    # csv looks after line ends itself: quoted cells may hold them. Bytes that are not UTF-8 come as surrogates.
    newline = "" if found is Format.CSV else "\n"
    with _opened_raw(file) as raw:
        text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline=newline)
        try:
            yield text
        finally:
            # Otherwise the wrapper would close standard input when it is forgotten.
            text.detach()


def opened_csv(file: Path) -> AbstractContextManager[TextIO]:
    """A CSV file, or standard input for `-`."""
    return _opened(file, Format.CSV)


@contextmanager
def _opened_raw(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        raw = file.open("rb")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE") from None
    with raw:
        yield raw


@contextmanager
def _written(errors: Path) -> Iterator[TextIO]:
    try:
        file = errors.open("w", encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{errors} cannot be written: {error.strerror}", param_hint="--errors") from None
    with file:
        yield file
