"""Renders a template for a locale and a context. Thread-safe.

A template is loaded when it is first used, and again when its files have changed and then stayed unchanged for a
second, so that a folder is not read while it is being copied. Loaded templates are replaced as a whole; renderings
in progress finish with the old one. If a working template is broken on disk, the old one stays in use until the
files are repaired: a slip in a file must not fail notifications. `notifier templates check` and the log report it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from notifier.config.logs import log
from notifier.domain.errors import Fault, NotFound, TemplateInvalid
from notifier.domain.statuses import Channel
from notifier.domain.template_variables import check_values
from notifier.rendering.loader import Loaded, Template, load
from notifier.rendering.output import SAMPLE_LINK, Rendered, write
from notifier.rendering.problems import errors_of
from notifier.rendering.static_checks import near
from notifier.rendering.template_files import Signature, changed_at, folder_names, locate, sign


@dataclass(frozen=True, slots=True)
class _Entry:
    signature: Signature
    #: When to look at the disk again, by the renderer's clock.
    check_at: float
    #: None: it has not been usable since it was first asked for.
    loaded: Loaded | None
    problems: tuple[str, ...]
    #: The signature at the last look, if it had changed. If it is the same next time, the files are loaded.
    changed_to: Signature | None = None


class Renderer:
    """The templates below one folder.

    `clock` is monotonic; `wall_clock` is the clock of the files' dates. A rendering checks its template's files if
    `recheck_seconds` have passed since the last check.
    """

    def __init__(
        self,
        root: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        recheck_seconds: float = 1.0,
    ) -> None:
        self._root = root
        self._clock, self._wall_clock = clock, wall_clock
        self._recheck_seconds = recheck_seconds
        self._entries: dict[tuple[Channel, str], _Entry] = {}
        self._loading = threading.Lock()

    def names(self, channel: Channel) -> tuple[str, ...]:
        """The templates of a channel, sorted, including broken ones."""
        return folder_names(self._root / channel)

    def template(self, channel: Channel, name: str) -> Template:
        """The template. Raises `NotFound`, whose text lists similar names, or `TemplateInvalid`."""
        return self._loaded(channel, name).template

    def channel_of(self, name: object) -> Channel | None:
        """The only channel that has a template of this name; None: several have one, or none."""
        found = [channel for channel in Channel if name in self.names(channel)]
        return found[0] if len(found) == 1 else None

    def check_context(self, channel: Channel, name: str, context: Mapping[str, Any]) -> list[Fault]:
        """Why `context` cannot be rendered with this template. Extra variables are allowed.

        Never raises: a missing or broken template is a fault in the field `template`.
        """
        try:
            template = self._loaded(channel, name).template
        except NotFound:
            problem, fix = f"there is no {channel} template {name!r}", near(name, self.names(channel))
            return [Fault("template", "unknown_template", problem, f"{fix[0].upper()}{fix[1:]}")]
        except TemplateInvalid:
            fix = "Run `notifier templates check` on the service's side, then publish again"
            return [Fault("template", "template_invalid", "the template is broken", fix)]
        return list(check_values(template.variables, context, "context"))

    def render(
        self,
        channel: Channel,
        name: str,
        locale: str | None,
        context: Mapping[str, Any],
        *,
        unsubscribe_url: str = SAMPLE_LINK,
    ) -> Rendered:
        """Render one notification, in the best language for a reader of `locale` (BCP 47; None: the template's
        default).

        `unsubscribe_url` is for templates that are not transactional; "" if there is none.

        Raises:
            NotFound: there is no such template.
            TemplateInvalid: it is broken.
            RenderingFailed: the context does not fit; the text names file and line, and repeats no value.
        """
        return write(self._loaded(channel, name), locale, context, unsubscribe_url)

    def _loaded(self, channel: Channel, name: str) -> Loaded:
        entry = self._entries.get((channel, name))
        if entry is None:
            with self._loading:
                entry = self._current(channel, name)
        elif self._clock() >= entry.check_at and self._loading.acquire(blocking=False):
            # One thread looks at the disk; the others go on with the old template.
            try:
                entry = self._current(channel, name)
            finally:
                self._loading.release()
        if entry.loaded is None:
            raise TemplateInvalid(f"{channel}/{name}", entry.problems)
        return entry.loaded

    def _current(self, channel: Channel, name: str) -> _Entry:
        """The entry, refreshed if that is due. Call it with the lock held."""
        # Read again with the lock held, because another thread may have replaced the entry.
        entry = self._entries.get((channel, name))
        if entry is None or self._clock() >= entry.check_at:
            return self._refresh(channel, name, entry)
        return entry

    def _refresh(self, channel: Channel, name: str, old: _Entry | None) -> _Entry:
        """Replace the entry by what is on the disk now. Call it with the lock held."""
        folders = locate(self._root, channel, name)
        if not folders:
            self._entries.pop((channel, name), None)
            raise NotFound(f"there is no {channel} template {name!r}: {near(name, self.names(channel))}")
        entry = self._next_entry(channel, name, folders, old)
        self._entries[channel, name] = entry
        return entry

    def _next_entry(self, channel: Channel, name: str, folders: Sequence[Path], old: _Entry | None) -> _Entry:
        """The entry after a look at the disk. A working template is only replaced by another working one whose
        files have stayed unchanged: by the file system's dates, or since the last look if its clock is ahead of
        ours."""
        signature, check_at = sign(folders), self._clock() + self._recheck_seconds
        if old is not None and signature == old.signature:
            return replace(old, check_at=check_at, changed_to=None)
        if old is None or old.loaded is None:
            return self._load(channel, name, signature, check_at)
        has_settled = self._wall_clock() - changed_at(folders) >= self._recheck_seconds
        if signature != old.changed_to and not has_settled:
            return replace(old, check_at=check_at, changed_to=signature)
        entry = self._load(channel, name, signature, check_at)
        if sign(folders) != signature:
            # It changed again while it was being read.
            return replace(old, check_at=check_at, changed_to=None)
        if entry.loaded is None:
            log.warning("template.broken", channel=channel, template=name, error=entry.problems[0])
            return replace(entry, loaded=old.loaded)
        return entry

    def _load(self, channel: Channel, name: str, signature: Signature, check_at: float) -> _Entry:
        loaded, problems = load(self._root, channel, name)
        return _Entry(signature, check_at, loaded, tuple(str(problem) for problem in errors_of(problems)))
