"""Checks templates, for `notifier templates check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from notifier.domain.errors import RenderingFailed
from notifier.domain.statuses import Channel
from notifier.domain.template_variables import check_values
from notifier.rendering.loader import UNSUBSCRIBE_URL, Edition, Loaded, load
from notifier.rendering.locales import fallbacks, same_language
from notifier.rendering.manifest import Sample
from notifier.rendering.output import Rendered, write
from notifier.rendering.problems import Severity, TemplateProblem
from notifier.rendering.sms_segments import outside_gsm
from notifier.rendering.template_files import (
    HTML,
    MANIFEST,
    SUBJECT,
    TEXT,
    Signature,
    changed_at,
    folder_names,
    folder_problem,
    locate,
    sign,
)

_PARTS = (SUBJECT, TEXT, HTML)


def check_templates(root: Path, *, name: str | None = None) -> list[TemplateProblem]:
    """Load every template below `root` (or those called `name`), check its files, and render its samples.

    Problems that are errors would make a message fail. Sorted by path and line.
    """
    return TemplateChecks(root).problems(name=name)


class TemplateChecks:
    """Repeated `check_templates`, which checks only templates whose files have changed. Thread-safe."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._checked: dict[tuple[Channel, str], _Checked] = {}

    def problems(self, *, name: str | None = None) -> list[TemplateProblem]:
        """Like `check_templates`."""
        if not self._root.is_dir():
            return [TemplateProblem(str(self._root), None, "there is no such folder: check NOTIFIER_TEMPLATES")]
        problems = {problem for channel in Channel if (problem := folder_problem(self._root, channel))}
        problems |= {
            problem
            for channel in Channel
            for template in folder_names(self._root / channel)
            if name in (None, template)
            for problem in self._problems_of(channel, template)
        }
        return sorted(problems, key=lambda problem: (problem.path, problem.line or 0, problem.text))

    def _problems_of(self, channel: Channel, name: str) -> tuple[TemplateProblem, ...]:
        folders = locate(self._root, channel, name)
        # Taken before the files are read, so that a change during the check is seen next time. Access rights can
        # change without a new signature.
        version = (sign(folders), changed_at(folders))
        checked = self._checked.get((channel, name))
        if checked is None or checked.version != version:
            checked = _Checked(version, tuple(_check_template(self._root, channel, name)))
            self._checked[channel, name] = checked
        return checked.problems


@dataclass(frozen=True, slots=True)
class _Checked:
    """The result for a template whose files were as `version` says."""

    version: tuple[Signature, float]
    problems: tuple[TemplateProblem, ...]


def _check_template(root: Path, channel: Channel, name: str) -> Iterator[TemplateProblem]:
    loaded, problems = load(root, channel, name)
    yield from problems
    if loaded is None:
        return
    yield from _check_variables(loaded)
    yield from _check_files(loaded)
    yield from _check_languages(loaded)
    yield from _check_samples(loaded)


def _check_variables(loaded: Loaded) -> Iterator[TemplateProblem]:
    """Variables that are used but not declared, or declared but not used."""
    declared, used = loaded.template.variables, set[str]()
    given = set[str]() if loaded.template.transactional else {UNSUBSCRIBE_URL}
    for edition in loaded.editions.values():
        assigned = {name for file in edition.examined.values() for name in file.assigned}
        for key, file in edition.examined.items():
            used.update(file.variables)
            for name, line in file.variables.items():
                if name not in declared and name not in assigned and name not in given:
                    text = f"{name} is not declared: add [variables.{name}] to {MANIFEST}, or correct the name"
                    yield TemplateProblem(edition.sources[key].path, line, text)
    for name in declared:
        if name not in used:
            text = f"variables.{name}: no part uses it; remove it, or use it"
            yield TemplateProblem(_manifest_path(loaded), None, text, Severity.WARNING)


def _check_files(loaded: Loaded) -> Iterator[TemplateProblem]:
    """Files in the template's own folders that no edition uses, usually because of a misspelt name."""
    used = {source.path for edition in loaded.editions.values() for source in edition.sources.values()}
    for source in loaded.shelf.files.values():
        is_own = source.path.startswith(f"{_folder(loaded)}/")
        if is_own and source.path not in used and source.path != _manifest_path(loaded):
            text = "nothing uses this file: correct its name, or remove it"
            yield TemplateProblem(source.path, None, text, Severity.WARNING)


def _check_languages(loaded: Loaded) -> Iterator[TemplateProblem]:
    """Editions in which a reader would find text in another language."""
    default, names = loaded.template.default_locale, loaded.template.category_names
    for locale in loaded.editions if names else ():
        if not any(tag in names for tag in fallbacks(locale)):
            text = f"category_names has no {locale}: readers would find another language on the page; add it"
            yield TemplateProblem(_manifest_path(loaded), None, text, Severity.WARNING)
    for edition in loaded.editions.values():
        if same_language(edition.locale, default):
            continue
        for name, source in edition.sources.items():
            falls_back = not source.locale or not same_language(source.locale, edition.locale)
            if falls_back and (name in _PARTS or loaded.shelf.locales_of(name)):
                text = f"{edition.locale} has no {name} of its own: readers would get this one; translate it"
                yield TemplateProblem(source.path, None, text, Severity.WARNING)


def _check_samples(loaded: Loaded) -> Iterator[TemplateProblem]:
    template, path = loaded.template, _manifest_path(loaded)
    if not template.samples:
        yield TemplateProblem(
            path, None, "there are no [[samples]]: add one, so that the template can be tried out"
        )
        return
    for sample in template.samples:
        faults = list(check_values(template.variables, sample.context, "context"))
        yield from (TemplateProblem(path, None, f"sample {sample.name!r}: {fault}") for fault in faults)
        for name in sorted(sample.context.keys() - template.variables.keys()):
            text = f"sample {sample.name!r}: context.{name} is not declared; remove it, or declare it"
            yield TemplateProblem(path, None, text, Severity.WARNING)
        if not faults:
            for edition in _editions_for(loaded, sample):
                yield from _check_rendering(loaded, sample, edition)
    for edition in loaded.editions.values():
        if not any(edition in _editions_for(loaded, sample) for sample in template.samples):
            text = f"no sample is rendered in {edition.locale}: add one, or a sample without a locale"
            yield TemplateProblem(path, None, text, Severity.WARNING)


def _editions_for(loaded: Loaded, sample: Sample) -> list[Edition]:
    if sample.locale is None:
        return list(loaded.editions.values())
    return [loaded.edition(sample.locale)]


def _check_rendering(loaded: Loaded, sample: Sample, edition: Edition) -> Iterator[TemplateProblem]:
    try:
        rendered = write(loaded, sample.locale or edition.locale, sample.context)
    except RenderingFailed as error:
        yield TemplateProblem(_manifest_path(loaded), None, f"sample {sample.name!r} in {edition.locale}: {error}")
        return
    budget, size = loaded.template.max_segments, rendered.segments
    if budget is not None and size is not None and size.count > budget:
        text = f"sample {sample.name!r} takes {size.count} segments, and max_segments is {budget}"
        yield TemplateProblem(
            edition.sources[TEXT].path, None, f"{text}: shorten the text{_why_unicode(rendered)}"
        )


def _why_unicode(rendered: Rendered) -> str:
    foreign = outside_gsm(rendered.text)
    if not foreign or len(foreign) > 10:
        return ""
    return f", or do without {' '.join(foreign)} (not in the GSM alphabet, which fits 160 characters)"


def _folder(loaded: Loaded) -> str:
    return f"{loaded.template.channel}/{loaded.template.name}"


def _manifest_path(loaded: Loaded) -> str:
    return f"{_folder(loaded)}/{MANIFEST}"
