"""Template files → `Rendered`: subject, text and HTML of a mail, or the text of an SMS and its segments.

Read in this order: `renderer` (what the service calls), `loading` (files → template), `writing` (template and
context → text), then `checking` (`notifier templates check`). `sandbox` and `examining` say what a template may
do, `filters` what it may write with, `variables` and `manifest` what it declares.
"""

from notifier.rendering.checking import check_templates
from notifier.rendering.gsm import Segments, segments
from notifier.rendering.loading import Template
from notifier.rendering.manifest import Sample
from notifier.rendering.problems import Problem, Severity
from notifier.rendering.renderer import Renderer
from notifier.rendering.variables import Type, Variable
from notifier.rendering.writing import Rendered

__all__ = [
    "Problem",
    "Rendered",
    "Renderer",
    "Sample",
    "Segments",
    "Severity",
    "Template",
    "Type",
    "Variable",
    "check_templates",
    "segments",
]
