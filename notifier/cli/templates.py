"""`notifier templates`: lists, checks and previews the templates in the folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from notifier.cli.arguments import read_context
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import AsJson, OfChannel, Variables
from notifier.cli.output import clean, count, hint, print_json, print_line, print_list, print_pairs
from notifier.domain.errors import InvalidMessage, NotFound, TemplateInvalid
from notifier.domain.statuses import Channel

if TYPE_CHECKING:
    from notifier.rendering import Rendered, Renderer, Segments, Template


#: Fields of a template that `list --json` shows unchanged.
LISTED_FIELDS = (
    *("version", "description", "default_locale", "locales", "sender", "on_unknown", "category"),
    *("transactional", "suppression_exempt", "max_segments"),
)
#: The sender of mails that are scored, if no sender identity is configured.
EXAMPLE_SENDER = "Corner Shop <hello@shop.example.com>"


def list_(context: typer.Context, channel: OfChannel = None, as_json: AsJson = False) -> None:
    """List every template with its languages and what it needs."""
    from notifier.rendering import Renderer

    folder = wiring(context).settings().templates
    renderer = Renderer(folder)
    channels = (channel,) if channel else tuple(Channel)
    found = [_listed(renderer, one, name) for one in channels for name in renderer.names(one)]
    print_list(
        found,
        {
            "channel": lambda one: one["channel"],
            "name": lambda one: one["name"],
            "locales": lambda one: " ".join(one.get("locales", ())),
            "variables": _variables,
            "samples": lambda one: None if one["problems"] else len(one["samples"]),
            "description": lambda one: one.get("description"),
        },
        as_json=as_json,
        noun="template",
        empty=f"no templates in {folder}; check NOTIFIER_TEMPLATES",
        next_step="notifier templates preview NAME",
        droppable=("samples", "locales", "description"),
    )


def _variables(one: dict[str, Any]) -> str:
    if one["problems"]:
        return "broken; run `notifier templates check`"
    variables = one["variables"]
    return " ".join(name if variable["required"] else f"[{name}]" for name, variable in variables.items())


def _listed(renderer: Renderer, channel: Channel, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"channel": channel, "name": name}
    try:
        template = renderer.template(channel, name)
    except TemplateInvalid as error:
        return found | {"problems": error.problems}
    variables = {
        key: {"type": one.type, "required": one.required, "secret": one.secret, "description": one.description}
        for key, one in template.variables.items()
    }
    samples = [sample.name for sample in template.samples]
    found |= {name: getattr(template, name) for name in LISTED_FIELDS}
    return found | {"variables": variables, "samples": samples, "problems": []}


def check(
    context: typer.Context,
    name: Annotated[str | None, Argument(help="Only the templates of this name.")] = None,
    spam: Annotated[bool, Option("--spam", help="Score the mails of all samples with SpamAssassin.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find every error in the templates before a message does.

    Exits 1 if there is an error, but not for warnings. With --spam: if a mail scores more than 0.
    """
    from notifier.rendering import Renderer, Severity, check_templates

    folder = wiring(context).settings().templates
    renderer = Renderer(folder)
    checked = sum(name in (None, found) for channel in Channel for found in renderer.names(channel))
    if name is not None and not checked:
        raise NotFound(f"there is no template {name!r} in {folder}; next: notifier templates list")
    if spam:
        _check_spam(context, renderer, name, as_json=as_json)
        return
    problems = check_templates(folder, name=name)
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    if as_json:
        print_json(problems)
    else:
        for problem in problems:
            print_line(clean(str(problem)), "red" if problem.severity is Severity.ERROR else "yellow")
        counts = f"{count(errors, 'error')}, {count(len(problems) - errors, 'warning')}"
        print_line(f"{count(checked, 'template')} checked: {counts}", "bold" if errors else "green")
        hint(f"in {folder}")
    if errors or not checked:
        raise typer.Exit(FAILED)


def _check_spam(context: typer.Context, renderer: Renderer, name: str | None, *, as_json: bool) -> None:
    from notifier.operations.spam_scores import spam_scores

    settings = wiring(context).settings()
    scores = spam_scores(renderer, lambda identity: settings.sender(identity).email or EXAMPLE_SENDER, name=name)
    above = sum(score.points > 0 for score in scores)
    print_list(
        scores,
        {
            "template": lambda one: one.template,
            "sample": lambda one: one.sample,
            "locale": lambda one: one.locale,
            "points": lambda one: f"{one.points:.1f}",
            "because of": lambda one: "; ".join(map(str, one.rules)),
        },
        as_json=as_json,
        noun="mail",
        empty="no mail templates with samples to score",
        styles={"points": lambda one: "red" if one.points > 0 else "green"},
    )
    if not as_json and scores:
        hint(f"{above} above 0; receivers usually treat a mail as spam from 5 points")
    if above:
        raise typer.Exit(FAILED)


def preview(
    context: typer.Context,
    name: Annotated[str, Argument(help="Name of the template.")],
    channel: Annotated[Channel | None, Option(help="Needed if both channels have this template.")] = None,
    values: Variables = None,
    locale: Annotated[str | None, Option(help="Language of the reader, for example fr or fr-CA.")] = None,
    sample: Annotated[int, Option(min=1, help="Which sample of the template, without --context.")] = 1,
    html: Annotated[Path | None, Option(metavar="FILE", help="Where to write the HTML.")] = None,
    as_json: AsJson = False,
) -> None:
    """Render a template with a context and show the result. Sends nothing."""
    from notifier.rendering import Renderer

    folder = wiring(context).settings().templates
    renderer = Renderer(folder)
    found = _channel_of(renderer, name, channel, folder)
    template = renderer.template(found, name)
    variables, locale = _chosen(template, folder, values, sample, locale)
    faults = renderer.check_context(found, name, variables)
    if faults:
        raise InvalidMessage(faults)
    rendered = renderer.render(found, name, locale, variables)
    if as_json:
        print_json(_rendered_as_json(rendered))
    else:
        _print_rendered(rendered, template)
    if rendered.html is not None and (html or not as_json):
        written = _write_html(html, rendered)
        hint("" if as_json else f"\nopen {written} to see the HTML")


def _channel_of(renderer: Renderer, name: str, channel: Channel | None, folder: Path) -> Channel:
    having = [one for one in Channel if name in renderer.names(one) and channel in (None, one)]
    if not having:
        wanted = f"{channel} template" if channel else "template"
        raise NotFound(f"there is no {wanted} {name!r} in {folder}; next: notifier templates list")
    if len(having) > 1:
        raise typer.BadParameter(f"both channels have {name}; choose one with --channel", param_hint="NAME")
    return having[0]


def _chosen(
    template: Template, folder: Path, values: list[str] | None, number: int, locale: str | None
) -> tuple[dict[str, Any], str | None]:
    """The context and the locale to render with: the given ones, or otherwise the sample's."""
    from notifier.cli.template_types import VariableTypes

    if values:
        given = read_context(values)
        return VariableTypes(folder).typed(template.channel, template.name, given.values, given.texts), locale
    if number > len(template.samples):
        have = count(len(template.samples), "sample")
        fix = "choose another with --sample, or give --context" if template.samples else "give --context"
        raise typer.BadParameter(f"{template.name} has {have}; {fix}", param_hint="--sample")
    sample = template.samples[number - 1]
    return dict(sample.context), locale or sample.locale


def _print_rendered(rendered: Rendered, template: Template) -> None:
    others = [one for one in template.locales if one != rendered.locale]
    also = f" (also in {', '.join(others)})" if others else ""
    size = rendered.segments
    print_pairs(
        [
            ("template", f"{rendered.template}, version {rendered.version}"),
            ("locale", rendered.locale + also),
            ("category", template.category or ""),
            ("unsubscribing", "" if template.transactional else "by a link in each mail"),
            ("suppressed", "never for a wish of the recipient's" if template.suppression_exempt else ""),
            ("subject", rendered.subject),
            ("size", _size(rendered.text, size, template.max_segments) if size else ""),
        ]
    )
    print_line()
    print_line(clean(rendered.text.rstrip("\n")))


def _size(text: str, size: Segments, budget: int | None) -> str:
    from notifier.rendering import characters_left, outside_gsm

    left = characters_left(text, size)
    parts = [f"{size.encoding}, {count(size.count, 'segment')}, {size.units} units, {left} left in the last one"]
    if size.encoding == "UCS-2":
        parts.append("because of " + " ".join(sorted(outside_gsm(text))[:10]))
    if budget:
        parts.append(f"budget {budget}" if size.count <= budget else f"over its budget of {budget}")
    return "; ".join(parts)


def _rendered_as_json(rendered: Rendered) -> dict[str, Any]:
    from notifier.rendering import characters_left

    size = rendered.segments
    names = ("template", "version", "locale", "subject", "text", "html")
    found: dict[str, Any] = {name: getattr(rendered, name) for name in names} | {"segments": None}
    if size is not None:
        left = characters_left(rendered.text, size)
        found["segments"] = {"encoding": size.encoding, "count": size.count, "units": size.units, "left": left}
    return found


def _write_html(path: Path | None, rendered: Rendered) -> Path:
    assert rendered.html is not None, "called for mails with HTML only"
    if path is None:
        # A name that nobody can guess, because everybody can write to the temporary folder.
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix=f"{rendered.template}-{rendered.locale}-", suffix=".html", delete=False
        ) as file:
            file.write(rendered.html)
        return Path(file.name)
    try:
        path.write_text(rendered.html, "utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}", param_hint="--html") from None
    return path
