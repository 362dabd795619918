"""`notifier publish`: publishes a file of messages, with a progress bar and a report on its bad lines."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO

import typer
from typer import Argument, Option

from notifier.cli.arguments import read_context, read_moment_exactly
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.files import opened, written
from notifier.cli.options import AsJson, MessageOptions, grouped
from notifier.cli.output import clean, hint, print_json, print_line, progress_bar, warn
from notifier.domain.errors import PublishFailed
from notifier.domain.statuses import Lane

if TYPE_CHECKING:
    from notifier.cli.batch_publisher import BadLine, BatchDefaults, BatchPublisher, Progress

#: Bad lines shown to people; `--errors` and `--json` have all.
SHOWN_BAD_LINES = 20


class Format(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"


WrittenAs = Annotated[Format | None, Option("--format", help="Default: by the file's name; jsonl for -.")]
_FORMATS = {".csv": Format.CSV, ".tsv": Format.CSV, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL}


@dataclass(frozen=True)
class LineOptions(MessageOptions):
    """Values for lines without the field. The file may be published again, so times are not counted from now."""

    lane: Annotated[Lane, Option(help="How urgent the messages are.")] = Lane.BULK
    template: Annotated[str | None, Option(help="Name of the template.")] = None
    send_at: Annotated[
        datetime | None,
        Option(parser=read_moment_exactly, metavar="TIME", help="Not before: 2026-11-22 or RFC 3339."),
    ] = None
    expires_at: Annotated[
        datetime | None,
        Option(parser=read_moment_exactly, metavar="TIME", help="Not after; written like --send-at."),
    ] = None

    def defaults(self) -> BatchDefaults:
        from notifier.cli.batch_publisher import BatchDefaults

        variables = read_context(self.values or ())
        fields = {"template": self.template, "context": variables.values or None, **self.fields()}
        given = {name: value for name, value in fields.items() if value is not None}
        return BatchDefaults(self.producer, self.channel, self.lane, given, variables.texts)


@grouped
def publish(
    context: typer.Context,
    file: Annotated[Path, Argument(help="A .csv, .jsonl or .ndjson file; - for standard input.")],
    *,
    message: LineOptions,
    written_as: WrittenAs = None,
    errors: Annotated[
        Path | None, Option(metavar="FILE", help="Write all bad lines to this file, as JSON.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a file of messages: CSV, or one JSON object per line.

    Options fill in what a line lacks; --context and --metadata add to what it has. Bad lines are reported and
    skipped. Publishing the same file again sends nothing twice.
    """
    from notifier.cli.batch_publisher import BatchPublisher
    from notifier.cli.template_types import VariableTypes

    form = file_format(file, written_as)
    world = wiring(context)
    with ExitStack() as stack:
        text = stack.enter_context(opened(file, newline="" if form is Format.CSV else "\n"))
        log = stack.enter_context(written(errors, "--errors")) if errors else None
        settings = world.settings()
        client = stack.enter_context(world.client(settings, message.producer))
        report = PublishReport(file, errors, log, as_json=as_json)
        publishing = BatchPublisher(
            client, message.defaults(), report.add, VariableTypes(settings.templates).typed
        )
        try:
            _run(publishing, text, form, hidden=as_json)
        except (PublishFailed, KeyboardInterrupt):
            report.print(publishing.progress)
            raise
        report.print(publishing.progress)
    if publishing.progress.failed:
        raise typer.Exit(FAILED)


def _run(publishing: BatchPublisher, text: io.TextIOWrapper, form: Format, *, hidden: bool) -> None:
    from notifier.cli.message_files import UnreadableFile, read_csv, read_json_lines

    raw: Any = text.buffer
    size = _size(raw)
    try:
        with progress_bar(size, hidden=hidden) as show:
            for progress in publishing.run(read_csv(text) if form is Format.CSV else read_json_lines(text)):
                words = f"{progress.sent} published" + (f", {progress.failed} bad" if progress.failed else "")
                show(words, raw.tell() if size else progress.read)
    except UnreadableFile as error:
        raise typer.BadParameter(str(error), param_hint="FILE") from None


class PublishReport:
    """The report at the end. It shows people the first bad lines; `--errors` and JSON have all."""

    def __init__(self, file: Path, errors: Path | None, log: TextIO | None, *, as_json: bool) -> None:
        self._file, self._errors, self._log, self._as_json = file, errors, log, as_json
        self._bad: list[BadLine] = []

    def add(self, bad: BadLine) -> None:
        if self._log:
            self._log.write(json.dumps(bad.as_dict(), ensure_ascii=False) + "\n")
        if self._as_json or len(self._bad) < SHOWN_BAD_LINES:
            self._bad.append(bad)

    def print(self, progress: Progress) -> None:
        if self._as_json:
            print_json({**asdict(progress), "errors": [bad.as_dict() for bad in self._bad]})
            return
        for bad in self._bad:
            for fault in bad.faults:
                warn(f"{self._file}:{bad.line}: {clean(str(fault))}")
        more = progress.failed - len(self._bad)
        if more > 0:
            where = f"all are in {self._errors}" if self._errors else "--errors FILE saves all of them"
            warn(f"… and {more} more bad lines; {where}")
        print_line(f"{progress.read} lines read: {progress.sent} published, {progress.failed} not")
        if not progress.complete:
            hint("It stopped before the end of the file. Run the same command again: nothing is sent twice.")
        elif progress.failed:
            hint("next: correct those lines and run the same command again; nothing is sent twice")
            hint("What the service rejects later, such as a missing variable, is in: notifier rejected list")
        elif progress.sent:
            hint("Running it again sends nothing twice.")
            hint("next: notifier search; for what the service rejects: notifier rejected list")


def _size(raw: BinaryIO) -> int | None:
    """Size of the file in bytes; None for a pipe."""
    if not raw.seekable():
        return None
    here = raw.tell()
    size = raw.seek(0, io.SEEK_END)
    raw.seek(here)
    return size


def file_format(file: Path, written_as: Format | None = None) -> Format:
    """The format of the file: the given one, or otherwise the one in its name."""
    found = written_as or (Format.JSONL if str(file) == "-" else _FORMATS.get(file.suffix.lower()))
    if found is None:
        raise typer.BadParameter(f"{file} is neither .csv nor .jsonl; give --format", param_hint="FILE")
    return found
