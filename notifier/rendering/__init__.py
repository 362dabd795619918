"""Turns template files into a `Rendered`: subject, text and HTML of a mail, or the text of an SMS and its
segments.

Read in this order: `renderer` (what the service calls), `loader` (files → template), `output` (template and
context → text), then `lint` (`notifier templates check`). `sandbox` and `static_checks` say what a template may
do, `filters` which filters it has, `manifest` what it declares, by the types in `domain.template_variables`.
`render_limits` says how much a template may produce; `limited_filters` and `limited_nodes` count it.
"""

from notifier.domain.template_variables import Type, Variable
from notifier.rendering.lint import TemplateChecks, check_templates
from notifier.rendering.loader import Template
from notifier.rendering.manifest import Sample
from notifier.rendering.output import Rendered
from notifier.rendering.problems import Severity, TemplateProblem
from notifier.rendering.render_limits import limited_time
from notifier.rendering.renderer import Renderer
from notifier.rendering.sms_segments import Segments, characters_left, outside_gsm, segments

__all__ = [
    "Rendered",
    "Renderer",
    "Sample",
    "Segments",
    "Severity",
    "Template",
    "TemplateChecks",
    "TemplateProblem",
    "Type",
    "Variable",
    "characters_left",
    "check_templates",
    "limited_time",
    "outside_gsm",
    "segments",
]
