"""Checks messages against the service's templates before they are published. Without it, a wrong template name or
a missing variable shows only in `notifier rejected list`.

The list of templates is kept for a minute. Only a list that has just been read can reject a message, so a template
that was deployed a moment ago is no fault. While the service does not answer, messages are not checked; the log
says so once, and publishing is delayed by no more than a second or two every 15 s.

If the service refuses the key before any list was read, that is an error: somebody asked for a check that is
impossible. Later it is one line in the log, so that revoking a key does not stop messages that went out well
before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Self

from pydantic import BaseModel, TypeAdapter, ValidationError

from notifier.client.conversations import ApiReply, list_templates, refused_key
from notifier.client.service_api import ServiceApi
from notifier.domain.errors import ConfigurationError, Fault
from notifier.domain.message import Message
from notifier.domain.statuses import Channel
from notifier.domain.template_variables import Variable, check_values

log = logging.getLogger("notifier.client.template_check")

#: A list is read again when it is older than this. Seconds.
REFRESH_SECONDS = 60.0
#: A list must be younger than this to reject a message; otherwise it is read again first. Seconds.
FRESH_SECONDS = 2.0
#: Pause before the service is asked again when it did not answer. Seconds.
AGAIN_SECONDS = 15.0
#: Time limit for the connection and for the answer, each. Seconds.
ANSWER_SECONDS = 1.0


class ListedTemplate(BaseModel):
    """One template in the answer of `GET /v1/templates`."""

    channel: Channel
    name: str
    is_broken: bool
    variables: dict[str, Variable]


_LIST = TypeAdapter(list[ListedTemplate])


class TemplateList:
    """The service's templates, as listed at one time."""

    def __init__(self, listed: Iterable[ListedTemplate]) -> None:
        self._templates: Mapping[tuple[Channel, str], ListedTemplate] = {
            (one.channel, one.name): one for one in listed
        }

    @classmethod
    def read(cls, reply: ApiReply) -> Self | None:
        """The list in the answer; None: the answer is not a list of templates."""
        try:
            return cls(_LIST.validate_json(reply.body)) if reply.status == 200 else None
        except ValidationError:
            return None

    def faults(self, message: Message) -> list[Fault]:
        """What is wrong with the message according to the templates."""
        if message.channel is None:
            return []
        template = self._templates.get((message.channel, message.template))
        if template is None:
            names = ", ".join(sorted(name for of, name in self._templates if of is message.channel)) or "none"
            problem = f"there is no {message.channel} template {message.template!r} that the key may see"
            return [Fault("template", "unknown_template", problem, f"Use one of: {names[:500]}")]
        if template.is_broken:
            fix = "Run `notifier templates check` on the service's side"
            return [Fault("template", "template_invalid", "the template is broken", fix)]
        return list(check_values(template.variables, message.context, "context"))

    def channel_of(self, template: object) -> Channel | None:
        """The only channel that has a template of this name; None: several have one, or none."""
        found = [channel for channel, name in self._templates if name == template]
        return found[0] if len(found) == 1 else None


class TemplateCheck:
    """Checks messages. Thread-safe. `clock` is monotonic."""

    def __init__(self, api: ServiceApi, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        #: None: no list has been read yet.
        self._templates: TemplateList | None = None
        self._read_at = float("-inf")
        self._ask_at = float("-inf")
        #: Why the last list could not be read; "": it could.
        self._problem = ""

    def faults(self, message: Message) -> list[Fault]:
        """What is wrong with the message according to the templates.

        Raises:
            ConfigurationError: address or key is missing, or was refused before any list was read.
        """
        if self._clock() - self._read_at >= REFRESH_SECONDS:
            self._read()
        found = self._templates.faults(message) if self._templates else []
        if found and self._clock() - self._read_at >= FRESH_SECONDS:
            found = self._templates.faults(message) if self._read() and self._templates else []
        return found

    def channel_of(self, template: object) -> Channel | None:
        """The only channel that has a template of this name; None: several have one, none has, or it is unknown.

        Raises:
            ConfigurationError: as for `faults`.
        """
        if self._clock() - self._read_at >= REFRESH_SECONDS:
            self._read()
        return self._templates.channel_of(template) if self._templates else None

    def close(self) -> None:
        self._api.close()

    def _read(self) -> bool:
        """Read the list if it is time. Returns whether a list was read now."""
        now = self._clock()
        if now < self._ask_at:
            return False
        # Set first, so that other threads do not ask at the same time.
        self._ask_at = now + AGAIN_SECONDS
        try:
            reply = self._api.run(list_templates())
        except ConfigurationError as error:
            if self._templates is None:
                self._ask_at = now
                raise
            self._tell(str(error))
            return False
        listed = TemplateList.read(reply)
        if listed is None:
            if self._templates is None and reply.status != 200 and not reply.is_temporary:
                self._ask_at = now
                raise refused_key(reply, "send or read")
            self._tell(reply.detail if reply.status != 200 else "the service is of another version")
            return False
        self._tell("")
        self._templates = listed
        self._read_at, self._ask_at = now, now
        return True

    def _tell(self, problem: str) -> None:
        """Log that the problem begins or ends."""
        if problem and not self._problem:
            log.warning("messages are published unchecked until the service lists its templates: %s", problem)
        elif self._problem and not problem:
            log.warning("messages are checked against the service's templates again")
        self._problem = problem
