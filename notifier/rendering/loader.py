"""Loads a template from its files: manifest, editions (the template in one language) and version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import jinja2

from notifier.domain.statuses import Channel, OnUnknown
from notifier.domain.template_variables import Type, Variable
from notifier.rendering.locales import canonical, fallbacks, known_locale
from notifier.rendering.manifest import Manifest, Sample, read_manifest
from notifier.rendering.problems import TemplateProblem, errors_of
from notifier.rendering.sandbox import environment_of
from notifier.rendering.static_checks import Examined, Reference, examine
from notifier.rendering.template_files import HTML, MANIFEST, SUBJECT, TEXT, Shelf, Source, chain, locate, read

#: A variable that templates for mails that are not transactional may use without declaring it.
UNSUBSCRIBE_URL = "unsubscribe_url"

_ON_UNKNOWN = {Channel.EMAIL: OnUnknown.RESEND, Channel.SMS: OnUnknown.HOLD}


@dataclass(frozen=True, slots=True)
class Template:
    channel: Channel
    name: str
    #: The first 16 hex digits of the SHA-256 of every file that it uses, shared ones included.
    version: str
    description: str
    variables: Mapping[str, Variable]
    default_locale: str
    #: The default one first.
    locales: tuple[str, ...]
    #: Name of the sender identity if the message names none; None: the service's default.
    sender: str | None
    on_unknown: OnUnknown
    #: Kind of message, which recipients can suppress by itself; None: none.
    category: str | None
    #: Locale → what people call the category.
    category_names: Mapping[str, str]
    #: False: its mails have an unsubscribe link for their category.
    transactional: bool
    #: It is sent even if the recipient opted out.
    suppression_exempt: bool
    #: Maximum number of segments of a sample; None: no limit.
    max_segments: int | None
    samples: tuple[Sample, ...]

    @property
    def secret_names(self) -> frozenset[str]:
        """Variables that are masked where people and logs can see them, and wiped after sending."""
        return frozenset(name for name, variable in self.variables.items() if variable.secret)

    @property
    def html_names(self) -> frozenset[str]:
        """Variables whose markup is written unescaped. With one of these, the producer decides what the mail
        says."""
        return frozenset(name for name, variable in self.variables.items() if variable.type is Type.HTML)


@dataclass(frozen=True, slots=True)
class Edition:
    """A template in one language, ready to render."""

    locale: str
    #: "ltr" or "rtl".
    direction: str
    text: jinja2.Template
    #: Mails only.
    subject: jinja2.Template | None
    html: jinja2.Template | None
    #: Every file that it uses, by the name by which templates refer to it.
    sources: Mapping[str, Source]
    examined: Mapping[str, Examined]


@dataclass(frozen=True, slots=True)
class Loaded:
    """One template with its editions."""

    template: Template
    #: Locale → edition; the default locale is always among them.
    editions: Mapping[str, Edition]
    shelf: Shelf

    def edition(self, locale: str | None) -> Edition:
        """The best edition for a reader: "fr-CA" → fr → the template's default locale."""
        for tag in fallbacks(locale or ""):
            if tag in self.editions:
                return self.editions[tag]
        return self.editions[self.template.default_locale]


def load(root: Path, channel: Channel, name: str) -> tuple[Loaded | None, list[TemplateProblem]]:
    """Read and compile one existing template. None: it cannot be used. A usable template may have warnings."""
    shelf, problems = read(root, locate(root, channel, name))
    folder = f"{channel}/{name}"
    manifest, found = _manifest(shelf, channel, folder)
    problems += found
    if manifest is None:
        return None, problems
    locales, found = _locales(shelf, manifest, folder)
    problems += found
    editions = {}
    for locale in locales:
        edition, found = _edition(shelf, channel, folder, chain(locale, manifest.default_locale))
        problems += (problem for problem in found if problem not in problems)
        if edition is not None:
            editions[locale] = edition
    if errors_of(problems):
        return None, problems
    declared = dict(manifest) | {
        "variables": MappingProxyType(dict(manifest.variables)),
        "category_names": MappingProxyType(dict(manifest.category_names)),
        "on_unknown": manifest.on_unknown or _ON_UNKNOWN[channel],
    }
    version = _version(shelf, editions.values())
    template = Template(channel=channel, name=name, version=version, locales=locales, **declared)
    return Loaded(template, MappingProxyType(editions), shelf), problems


def _manifest(shelf: Shelf, channel: Channel, folder: str) -> tuple[Manifest | None, list[TemplateProblem]]:
    source = shelf.files.get(MANIFEST)
    if source is None:
        return None, [TemplateProblem(folder, None, f"{MANIFEST} is missing: add one with at least a description")]
    manifest, problems = read_manifest(source.path, source.text)
    if manifest and manifest.max_segments and channel is not Channel.SMS:
        problems.append(TemplateProblem(source.path, None, "max_segments: is for SMS only; remove it"))
    if manifest and manifest.category_names and manifest.category is None:
        problems.append(
            TemplateProblem(source.path, None, "category_names: name a category that is missing; add it")
        )
    if manifest and not manifest.transactional:
        problems += (
            TemplateProblem(source.path, None, f"transactional: {what}") for what in _endless(manifest, channel)
        )
    return manifest, problems


def _endless(manifest: Manifest, channel: Channel) -> Iterator[str]:
    """Reasons why it cannot have an unsubscribe link."""
    if channel is not Channel.EMAIL:
        yield "false is for e-mail only; remove it"
    if manifest.category is None:
        yield 'false needs a category, as "digest": that is what its link ends'
    if manifest.suppression_exempt:
        yield "false and suppression_exempt cannot both be: what must be sent by law cannot be ended"


def _locales(shelf: Shelf, manifest: Manifest, folder: str) -> tuple[tuple[str, ...], list[TemplateProblem]]:
    problems = []
    own = {source.locale for source in shelf.files.values() if source.path.startswith(f"{folder}/")} - {""}
    for tag in sorted(own):
        where = f"{folder}/{tag}"
        if known_locale(tag) is None:
            problems.append(
                TemplateProblem(where, None, "the folder is not a locale: rename it, as fr or zh-Hans")
            )
        elif canonical(tag) != tag:
            problems.append(TemplateProblem(where, None, f"spell the folder {canonical(tag)}"))
        elif tag == manifest.default_locale:
            text = f"{tag} is the default locale: move the files up, into {folder}"
            problems.append(TemplateProblem(where, None, text))
    return (manifest.default_locale, *sorted(own - {manifest.default_locale})), problems


def _edition(
    shelf: Shelf, channel: Channel, folder: str, locales: tuple[str, ...]
) -> tuple[Edition | None, list[TemplateProblem]]:
    parts, problems = _parts(shelf, channel, folder)
    sources, examined, found = _collect(shelf, parts, locales)
    problems += found
    if errors_of(problems):
        return None, problems
    environment = environment_of({name: file.code for name, file in examined.items() if file.code})
    ready = {part: environment.get_template(part) for part in parts}
    locale = known_locale(locales[0])
    edition = Edition(
        locale=locales[0],
        direction=locale.text_direction if locale else "ltr",
        text=ready[TEXT],
        subject=ready.get(SUBJECT),
        html=ready.get(HTML),
        sources=sources,
        examined=examined,
    )
    return edition, problems


def _parts(shelf: Shelf, channel: Channel, folder: str) -> tuple[list[str], list[TemplateProblem]]:
    """The parts of every edition. The default locale must have all of them, because the others fall back to it."""
    needed = {Channel.EMAIL: (SUBJECT, TEXT), Channel.SMS: (TEXT,)}[channel]
    missing = [part for part in needed if part not in shelf.files]
    if channel is Channel.EMAIL and HTML not in shelf.files and shelf.locales_of(HTML):
        missing.append(HTML)
    problems = [
        TemplateProblem(folder, None, f"{part} is missing in the default locale: add it") for part in missing
    ]
    parts = [part for part in (SUBJECT, TEXT, HTML) if part in shelf.files]
    if channel is Channel.SMS:
        surplus = (shelf.files[part].path for part in parts if part != TEXT)
        problems += (TemplateProblem(path, None, f"an SMS has {TEXT} only: remove it") for path in surplus)
    return parts, problems


def _collect(
    shelf: Shelf, parts: Iterable[str], locales: tuple[str, ...]
) -> tuple[dict[str, Source], dict[str, Examined], list[TemplateProblem]]:
    """The parts, and all files that they extend, include and import, in the given locales."""
    sources: dict[str, Source] = {}
    examined: dict[str, Examined] = {}
    problems: list[TemplateProblem] = []
    waiting = [("", Reference(part, 1)) for part in parts]
    while waiting:
        origin, reference = waiting.pop()
        if reference.name in sources:
            continue
        source = shelf.find(reference.name, locales)
        if source is None:
            text = f"there is no file {reference.name}: correct the name, or add it"
            problems.append(TemplateProblem(origin, reference.line, text))
            continue
        file = examine(reference.name, source.path, source.text)
        sources[reference.name], examined[reference.name] = source, file
        problems += file.problems
        waiting += [(source.path, found) for found in file.references]
    return sources, examined, problems


def _version(shelf: Shelf, editions: Iterable[Edition]) -> str:
    used = {source for edition in editions for source in edition.sources.values()} | {shelf.files[MANIFEST]}
    digest = hashlib.sha256()
    for source in sorted(used, key=lambda source: source.path):
        # Includes the lengths, so that moving text from one file to the next changes the digest.
        digest.update(f"{source.path}\0{len(source.text)}\0{source.text}\0".encode())
    return digest.hexdigest()[:16]
