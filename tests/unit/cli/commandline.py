"""Calls the command line in this process, connected to what a test gives it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from notifier.cli.app import app
from notifier.cli.context import Wiring
from notifier.client.client import RecordingClient
from notifier.config.settings import Settings, load_settings

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Answer:
    """What one call printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class CommandLine:
    """`notifier` with a recording client and the given settings. Nothing of the machine's own is read."""

    settings: dict[str, Any] = field(default_factory=dict)
    client: Any = field(default_factory=lambda: RecordingClient(producer="cli"))

    def __call__(self, *arguments: object, stdin: str | bytes | None = None) -> Answer:
        world = Wiring(settings=self._settings, client=lambda settings, producer: nullcontext(self.client))
        given = [str(argument) for argument in arguments]
        result = CliRunner().invoke(app, given, input=stdin, obj=world, prog_name="notifier")
        return Answer(result.exit_code, result.stdout, result.stderr)

    def _settings(self) -> Settings:
        return load_settings(use_running=False, **({"templates": TEMPLATES} | self.settings))

    @property
    def sent(self) -> Sequence[Any]:
        """The messages that the client took."""
        return [recorded.message for recorded in self.client.sent]
