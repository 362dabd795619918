"""Renders templates to pages. Every template escapes its values, so nothing that strangers wrote becomes
markup."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from notifier.domain.labels import (
    PROOFS,
    PROVIDER_STATES,
    REDACTED,
    STATUSES,
    SUPPRESSIONS,
    due_in_words,
    reason_in_words,
    run_in_words,
    status_in_words,
)
from notifier.domain.local_days import local_time
from notifier.domain.statuses import Status
from notifier.operations.api_keys import Scope
from notifier.rendering import characters_left, outside_gsm

HERE = Path(__file__).parent
STATIC = HERE / "static"

#: Only our own scripts, no styles within pages, nothing from elsewhere, and no frame around us.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    # Pages hold people's data, so no cache may keep them.
    "Cache-Control": "no-store",
}

#: Status → colour of its badge, by Tabler's name.
_COLOURS: Mapping[str, str] = {
    Status.DELIVERED: "green",
    Status.SENT: "teal",
    Status.SCHEDULED: "azure",
    Status.QUEUED: "blue",
    Status.SENDING: "blue",
    Status.RETRYING: "yellow",
    Status.UNKNOWN: "purple",
    Status.FAILED: "red",
    Status.UNDELIVERED: "red",
    Status.EXPIRED: "orange",
    Status.CANCELLED: "secondary",
    Status.SUPPRESSED: "orange",
}


class MenuItem(NamedTuple):
    path: str
    title: str
    #: Shown to visitors with this scope.
    scope: Scope


MENU = (
    MenuItem("/", "Health", Scope.OPERATE),
    MenuItem("/search", "Notifications", Scope.READ),
    MenuItem("/failed", "Failed", Scope.OPERATE),
    MenuItem("/jobs", "Jobs", Scope.OPERATE),
    MenuItem("/rejected", "Rejected", Scope.OPERATE),
    MenuItem("/unknown", "To resolve", Scope.OPERATE),
    MenuItem("/suppressions", "Suppressions", Scope.OPERATE),
    MenuItem("/templates", "Templates", Scope.READ),
    MenuItem("/recurring", "Recurring", Scope.READ),
    MenuItem("/schedules", "Schedules", Scope.OPERATE),
    MenuItem("/log", "Log", Scope.OPERATE),
    MenuItem("/keys", "Keys", Scope.ADMIN),
)


_MACROS = ("icon", "badge", "moment", "empty", "figure")


class Pages:
    """Renders pages. Thread-safe."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters: dict[str, Callable[..., Any]] = {
            "at": self._at,
            "at_or_as_is": self._at_or_as_is,
            "iso": lambda moment: moment.astimezone(UTC).isoformat(timespec="milliseconds"),
            "in_zone": local_time,
            "ago": ago,
            "span": span,
            "sentence": sentence,
            "number": lambda value: f"{value:,}".replace(",", "\u202f"),
            "colour": lambda status: _COLOURS.get(status, "secondary"),
            "status_words": lambda status: STATUSES.get(status, ""),
            "status_sentence": status_in_words,
            "reason_words": reason_in_words,
            "due_words": due_in_words,
            "proof_words": lambda proof: PROOFS.get(proof, proof),
            "provider_state_words": lambda state: PROVIDER_STATES.get(state, state),
            "run_words": run_in_words,
            "suppression_words": lambda reason: SUPPRESSIONS.get(reason, reason),
            "outside_gsm": outside_gsm,
            "characters_left": characters_left,
        }
        self._templates.filters |= filters
        self._templates.globals |= {
            "asset": asset,
            "redacted": REDACTED,
            "zone": zone.key,
            "statuses": list(Status),
            "menu": MENU,
            "token": _token,
            "typed": _typed,
            "chosen": _chosen,
            "fault": _fault,
            "faulty": _faulty,
        }
        # Macros for every template.
        pieces: Any = self._templates.get_template("parts.html").module
        self._templates.globals |= {
            name: getattr(pieces, name) for name in ("icon", "badge", "moment", "empty", "figure")
        }

    def page(self, request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        """The template `name` with these values. `visitor` is who is signed in (None: nobody), and `again` is the
        form that is shown again (None: none)."""
        template = self._templates.get_template(name)
        given = {
            "visitor": getattr(request.state, "visitor", None),
            "again": getattr(request.state, "again", None),
        }
        text = template.render(**given, path=request.url.path, now=datetime.now(UTC), **values)
        return HTMLResponse(text, status, dict(HEADERS))

    def _at(self, moment: datetime | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
        """The moment in the service's time zone; "" for None."""
        if moment is None:
            return ""
        try:
            return moment.astimezone(self._zone).strftime(form)
        except OverflowError:  # the last hours of the year 9999, which producers may send
            return moment.strftime(form)

    def _at_or_as_is(self, value: Any) -> Any:
        """A moment in ISO format as pages show moments, with the zone; anything else unchanged."""
        try:
            moment = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            return value
        return value if moment.tzinfo is None else f"{self._at(moment)} {self._zone.key}"


@pass_context
def _token(context: Context) -> Markup:
    """The hidden field without which a form is refused."""
    return Markup('<input type="hidden" name="form_token" value="{}">').format(context["visitor"].form_token)


@pass_context
def _typed(context: Context, field: str, default: object = "") -> object:
    """What was typed into a field of a form that is shown again."""
    again = context["again"]
    return again.typed.get(field, [""])[0] if again else default


@pass_context
def _chosen(context: Context, field: str, value: str) -> Markup:
    """The attribute of a box that was ticked."""
    again = context["again"]
    return Markup(" checked") if again and value in again.typed.get(field, ()) else Markup()


@pass_context
def _faulty(context: Context, field: str, hint: str = "") -> Markup:
    """The attributes of a field with a fault; `hint` is the id of its description."""
    is_wrong = _words_on(context, field) != ""
    described = " ".join(filter(None, [hint, f"fault-{field}" if is_wrong else ""]))
    attributes = Markup(' aria-describedby="{}"').format(described) if described else Markup()
    return attributes + Markup(' aria-invalid="true"') if is_wrong else attributes


@pass_context
def _fault(context: Context, field: str) -> Markup:
    """What is wrong with a field, shown below it."""
    words = _words_on(context, field)
    line = Markup('<div class="field-fault" id="fault-{}">{}</div>')
    return line.format(field, words[:1].upper() + words[1:]) if words else Markup()


def _words_on(context: Context, field: str) -> str:
    again = context["again"]
    found = again.faults if again else ()
    return next((fault.words for fault in found if fault.field.partition(".")[0] == field), "")


@cache
def asset(name: str) -> str:
    """The URL of a file in `static/`. It changes with the file, so browsers may keep the file."""
    version = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={version}"


def sentence(words: str) -> str:
    """The text with a capital first letter. The rest stays, because names keep their case."""
    return words[:1].upper() + words[1:]


def ago(moment: datetime | None) -> str:
    """`5 minutes ago`, `in 2 hours`; "" for None."""
    if moment is None:
        return ""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def span(length: float | timedelta | None) -> str:
    """A duration: `40 ms`, `12 s`, `5 minutes`, `3 hours`, `2 days`; "" for None. A number is in seconds."""
    if length is None:
        return ""
    seconds = length.total_seconds() if isinstance(length, timedelta) else float(length)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    for size, unit, until in ((60, "minutes", 120), (3600, "hours", 48), (86400, "days", float("inf"))):
        if seconds / size < until:
            return f"{seconds / size:.0f} {unit}"
    raise AssertionError
