"""Scores the mails that templates make with SpamAssassin, by the rules on this machine, without the network.

A score grows with features that spam has and other mail does not. Receivers usually call a mail spam at 5.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from pathlib import Path
from shutil import which

from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from notifier.domain.statuses import Channel
from notifier.rendering import Rendered, Renderer, Template
from notifier.rendering.output import SAMPLE_LINK

_NOT_INSTALLED = (
    "SpamAssassin is not installed: sudo apt-get install spamassassin (macOS: brew install spamassassin), or "
    "leave --spam out"
)
#: Uses neither what this user has taught it nor what it has seen before, so everybody gets the same score.
_ARGUMENTS = (
    *("--local", "--test-mode", "--nocreate-prefs", f"--prefspath={os.devnull}"),
    *("--cf=use_bayes 0", "--cf=clear_report_template"),
    *("--cf=report NOTIFIER-SCORE _SCORE_", "--cf=report _SUMMARY_"),
)
_SCORE = re.compile(r"^NOTIFIER-SCORE (-?[0-9]+(?:\.[0-9]+)?)$", re.MULTILINE)
_RULE = re.compile(r"^ *(-?[0-9]+\.[0-9]+) (\w+) +(.+(?:\n {20,}\S.*)*)", re.MULTILINE)
_REPAIR = "Run `spamassassin --lint` to see what is wrong with it, or leave --spam out"
#: Maximum length of SpamAssassin's output that is shown.
_SHOWN = 200
#: A mail takes a tenth of a second, and the start takes two seconds.
_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class SpamRule:
    name: str
    points: float
    description: str

    def __str__(self) -> str:
        return f"{self.points} {self.name} {self.description}"


@dataclass(frozen=True, slots=True)
class SpamScore:
    """The score of one sample in one language."""

    template: str
    sample: str
    locale: str
    points: float
    #: Rules that add points, the most points first.
    rules: tuple[SpamRule, ...]


def spam_scores(
    renderer: Renderer, sender: Callable[[str | None], str], *, name: str | None = None
) -> list[SpamScore]:
    """Score every sample of every mail template, or of those called `name`, in every language.

    `sender` returns the From address for an identity's name.

    Raises:
        ConfigurationError: SpamAssassin is not installed, does not start, or does not score each mail; the text
            has its output.
        ServiceUnavailable: it took minutes.
        TemplateInvalid, RenderingFailed: `check_templates` says more.
    """
    program = which("spamassassin")
    if program is None:
        raise ConfigurationError(_NOT_INSTALLED)
    names = [one for one in renderer.names(Channel.EMAIL) if name in (None, one)]
    templates = [renderer.template(Channel.EMAIL, one) for one in names]
    cases = [
        (template, sample.name, renderer.render(Channel.EMAIL, template.name, locale, sample.context))
        for template in templates
        for sample in template.samples
        for locale in ([sample.locale] if sample.locale else template.locales)
    ]
    judged = _judge(
        program, [_mail(rendered, template, sender(template.sender)) for template, _, rendered in cases]
    )
    return [
        SpamScore(template.name, sample, rendered.locale, points, rules)
        for (template, sample, rendered), (points, rules) in zip(cases, judged, strict=True)
    ]


def parse_reports(text: str) -> Iterator[tuple[float, tuple[SpamRule, ...]]]:
    """The score of each mail in SpamAssassin's output, and the rules that add points."""
    parts = _SCORE.split(text)
    for points, report in zip(parts[1::2], parts[2::2], strict=True):
        # An empty line ends a report, and the next mail follows.
        found = _RULE.findall(report.strip("\n").partition("\n\n")[0])
        rules = [SpamRule(name, float(cost), " ".join(description.split())) for cost, name, description in found]
        adding = sorted((rule for rule in rules if rule.points > 0), key=lambda rule: -rule.points)
        # SpamAssassin writes -0.0 for rules that only inform.
        yield float(points) + 0.0, tuple(adding)


def _judge(program: str, mails: Sequence[EmailMessage]) -> list[tuple[float, tuple[SpamRule, ...]]]:
    """Score all mails in one process, because reading the rules takes seconds."""
    if not mails:
        return []
    with tempfile.TemporaryDirectory(prefix="notifier-spam-") as folder:
        paths = [Path(folder) / f"{number:06}.eml" for number in range(len(mails))]
        for path, mail in zip(paths, mails, strict=True):
            path.write_bytes(mail.as_bytes())
        try:
            run = subprocess.run(
                [program, *_ARGUMENTS, *map(str, paths)],
                env=os.environ | {"LC_ALL": "C"},
                capture_output=True,
                check=False,
                timeout=_TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            problem = f"SpamAssassin took more than {_TIMEOUT_SECONDS:.0f} s: score fewer templates at once"
            raise ServiceUnavailable(problem) from None
        except OSError as error:
            raise ConfigurationError(f"{program} cannot be run: {error.strerror}. {_REPAIR}") from None
    judged = list(parse_reports(run.stdout.decode("utf-8", "replace")))
    if len(judged) != len(mails):
        how = f"a signal, {-run.returncode}" if run.returncode < 0 else f"exit code {run.returncode}"
        raise ConfigurationError(
            f"SpamAssassin scored {len(judged)} of {len(mails)} mails: {program} ended with {how}, and "
            f"{_first_words(run.stderr, run.stdout)}. {_REPAIR}"
        )
    return judged


def _first_words(*streams: bytes) -> str:
    """The first line of the first stream that has one."""
    lines = (stream.decode("utf-8", "replace").strip().partition("\n")[0] for stream in streams)
    said = next(filter(None, lines), None)
    return f"said {said[:_SHOWN]!r}" if said else "said nothing"


def _mail(rendered: Rendered, template: Template, sender: str) -> EmailMessage:
    """The mail as our SMTP provider composes it, except encodings, which no rule reads."""
    mail = EmailMessage(SMTP)
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["From"] = sender
    mail["To"] = "ada@example.net"
    mail["Subject"] = rendered.subject
    mail["Message-ID"] = make_msgid(domain="example.com")
    mail["Auto-Submitted"] = "auto-generated"
    if not template.transactional:
        mail["List-Unsubscribe"] = f"<{SAMPLE_LINK}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail["Content-Language"] = rendered.locale
    mail.set_content(rendered.text)
    if rendered.html is not None:
        mail.add_alternative(rendered.html, subtype="html")
    return mail
