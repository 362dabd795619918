"""Finds variables and secret files named `NOTIFIER_…` that nothing reads: a misspelt setting would otherwise
silently keep its default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches

from notifier.config.callbacks import references
from notifier.config.logs import log
from notifier.config.secret_files import secret_files, secrets_folder
from notifier.config.settings import Settings, structure_path

_PREFIX = "NOTIFIER_"
#: Read by modules other than `Settings`, or set for producers. Variables of tests belong to the tests.
_READ_ELSEWHERE = ("NOTIFIER_SECRETS_DIR", "NOTIFIER_OUTBOX_URL", "NOTIFIER_API_URL", "NOTIFIER_API_KEY")
_OF_TESTS = "NOTIFIER_TEST_"
#: Kubernetes sets these for each of its services whose name begins with "notifier".
_SERVICE_HOST = "_SERVICE_HOST"
#: Maximum length of a name that is shown. Ours are far shorter.
_SHOWN_LENGTH = 80
#: Minimum similarity of two names without the prefix that all have: `DB_URL` still resembles `DATABASE_URL`.
_ALIKE = 0.66
_OF_A_SERVICE = re.compile(r"_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


def unknown_variables(settings: Settings) -> list[str]:
    """What is wrong with each, in words, without its value. Variables to which notifier.toml refers are known."""
    names = {f"{_PREFIX}{name.upper()}" for name, field in Settings.model_fields.items() if not field.exclude}
    in_files = names | _referred_to(settings)
    known = in_files.union(_READ_ELSEWHERE)
    variables = [_in_words(name, "is set", names.union(_READ_ELSEWHERE)) for name in sorted(_unread(known))]
    files = [path.name for path in secret_files() if path.name.upper().startswith(_PREFIX)]
    where = f"is in the secrets folder {secrets_folder()}"
    return variables + [_in_words(name, where, names) for name in files if name.upper() not in in_files]


def warn_of_unknown_variables(settings: Settings) -> None:
    """Log a line for each."""
    for problem in unknown_variables(settings):
        log.warning("settings.unknown_variable", reason=problem)


def _unread(known: set[str]) -> Iterator[str]:
    # Settings are recognised in any case.
    ours = {name.upper(): name for name in os.environ if name.upper().startswith(_PREFIX)}
    services = [name.removesuffix(_SERVICE_HOST) for name in ours if name.endswith(_SERVICE_HOST)]
    of_services = {
        name
        for service in services
        for name in ours
        if name.startswith(service) and _OF_A_SERVICE.fullmatch(name.removeprefix(service))
    }
    for name, spelt in ours.items():
        if name not in known | of_services and not name.startswith(_OF_TESTS):
            yield spelt


def _referred_to(settings: Settings) -> set[str]:
    path = structure_path(settings)
    return set() if path is None else references(path.read_text("utf-8"))


def _in_words(name: str, where: str, known: set[str]) -> str:
    ours = sorted(one.removeprefix(_PREFIX) for one in known if one.startswith(_PREFIX))
    nearest = get_close_matches(name.upper().removeprefix(_PREFIX), ours, n=1, cutoff=_ALIKE)
    fix = f"did you mean {_PREFIX}{nearest[0]}?" if nearest else "docs/reference/settings.md has the names"
    return f"{_on_one_line(name)} {where}, and nothing reads it: {fix}"


def _on_one_line(name: str) -> str:
    """Any text without "=" can be a name, so characters other than printable ASCII are escaped, and a long name is
    cut."""
    spelt = name.encode("unicode_escape").decode("ascii")
    return spelt if len(spelt) <= _SHOWN_LENGTH else f"{spelt[:_SHOWN_LENGTH]}…"
