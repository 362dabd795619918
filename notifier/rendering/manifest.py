"""Reads template.toml, in which a template declares its variables and properties."""

from __future__ import annotations

import keyword
import re
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from notifier.domain.statuses import OnUnknown
from notifier.domain.template_variables import Variable, as_json
from notifier.rendering.locales import canonical, known_locale
from notifier.rendering.problems import TemplateProblem
from notifier.rendering.sandbox import PROVIDED

#: Jinja gives these names a meaning of its own.
_JINJA_NAMES = {"loop", "self", "super", "caller", "varargs", "kwargs", "true", "false", "none"}
_TOO_DEEP = "nested too deeply: declare fewer levels"
#: A key of very many parts. For thousands of parts, Python's TOML reader takes minutes and gigabytes.
_DEEP_KEY = re.compile(r"(?<![^\s.])(?:[^\s.]{1,100}+[ \t]{0,3}+\.[ \t]{0,3}+){50}")
_LINE = re.compile(r"\(at line (\d+), column \d+\)")


def _check_name(name: str) -> str:
    if not name.isidentifier() or name.startswith("_") or keyword.iskeyword(name) or name in _JINJA_NAMES:
        raise PydanticCustomError("name", "not a name for a variable; use letters, digits and _")
    if name in PROVIDED:
        raise PydanticCustomError("name", "every template has this name already; choose another")
    return name


def _check_locale(tag: str) -> str:
    if known_locale(tag) is None or canonical(tag) != tag:
        raise PydanticCustomError("locale", 'not a language tag in its usual spelling, as "fr" or "zh-Hans"')
    return tag


_VariableName = Annotated[str, BeforeValidator(_check_name)]
_LocaleTag = Annotated[str, BeforeValidator(_check_locale)]


class Sample(BaseModel):
    """A context to check and preview the template with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1)]
    #: Render it in this language only; unset: in every locale that the template has.
    locale: _LocaleTag | None = None
    context: Annotated[dict[str, Any], BeforeValidator(as_json)] = Field(default_factory=dict)


class Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    #: What the template is for, in one line.
    description: Annotated[str, Field(min_length=1)]
    #: Language of the files directly in the template's folder.
    default_locale: _LocaleTag = "en"
    #: Name of the sender identity if the message names none; unset: the service's default.
    sender: str | None = None
    #: Unset: resend for e-mail, hold for SMS.
    on_unknown: OnUnknown | None = None
    #: Kind of message, such as "digest", which recipients can suppress by itself.
    category: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = None
    #: What people call the category, for each language. It is shown on the unsubscribe page.
    category_names: Mapping[_LocaleTag, Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        default_factory=dict
    )
    #: E-mail only. False: the recipient did not ask for this very mail, so it offers to unsubscribe from its
    #: category (RFC 8058).
    transactional: bool = True
    #: It must be sent by law, or the recipient has just asked for it, so it is sent even if the recipient opted
    #: out.
    suppression_exempt: bool = False
    #: SMS only: no sample may take more segments in any locale. A budget for authors, not a limit on messages.
    max_segments: Annotated[int | None, Field(ge=1, le=10)] = None
    variables: Mapping[_VariableName, Variable] = Field(default_factory=dict)
    samples: tuple[Sample, ...] = ()


def read_manifest(path: str, text: str) -> tuple[Manifest | None, list[TemplateProblem]]:
    """Read one template.toml: return the manifest, or every problem with it by key."""
    if _DEEP_KEY.search(text):
        return None, [TemplateProblem(path, None, _TOO_DEEP)]
    try:
        return Manifest.model_validate(tomllib.loads(text)), []
    except ValidationError as error:
        return None, [_problem(path, detail) for detail in error.errors(include_url=False)]
    except ValueError as error:  # TOML errors, and Python's error for a number with thousands of digits
        line = _LINE.search(str(error))
        what = _LINE.sub("", str(error)).strip()
        return None, [TemplateProblem(path, int(line[1]) if line else None, f"not valid TOML: {what}")]
    except RecursionError:
        return None, [TemplateProblem(path, None, _TOO_DEEP)]


def _problem(path: str, detail: Mapping[str, Any]) -> TemplateProblem:
    key = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    if detail["type"] == "extra_forbidden":
        return TemplateProblem(path, None, f"{key}: unknown key; remove it or correct its spelling")
    if detail["type"] == "missing":
        return TemplateProblem(path, None, f"{key}: is missing; add it")
    return TemplateProblem(path, None, f"{key}: {detail['msg'][:1].lower()}{detail['msg'][1:]}")
