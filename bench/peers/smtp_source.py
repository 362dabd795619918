"""Postfix's `smtp-source`: no queue, no record, no template, one finished mail again and again. It shows the
limit."""

from __future__ import annotations

import contextlib
import email.policy
import subprocess
from collections.abc import Iterator, Mapping
from email.message import EmailMessage
from pathlib import Path

import jinja2

from bench import mails
from bench.postfix import Absent, Postfix
from bench.servers import ended
from bench.subjects import Ground, Task

_SESSIONS, _SLOW_SESSIONS = 20, 400


class SmtpSourceRun:
    """See `bench.subjects.Run`."""

    def __init__(self, command: list[str], postfix: Postfix) -> None:
        self._command = command
        self._postfix = postfix
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None

    def hold(self) -> None:
        """Does nothing: it only runs while it sends."""
        self.stop()

    def fill(self, count: int) -> None:
        """Note the number."""
        self._count = count

    def release(self) -> None:
        """Start it."""
        command = [*self._command[:-1], "-m", str(self._count), self._command[-1]]
        self._process = subprocess.Popen(
            command, env=self._postfix.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def recorded(self) -> int:
        """It records nothing, so only the server's count is known."""
        return self._count

    def pids(self) -> Mapping[str, int]:
        """See `Run.pids`."""
        return {} if self._process is None else {"smtp-source": self._process.pid}

    def stop(self) -> None:
        """Safe to repeat."""
        if self._process is not None:
            ended(self._process)
            self._process = None


class SmtpSource:
    """See `bench.subjects.Subject`."""

    name = "smtp_source"

    def absent(self, ground: Ground) -> str:
        """See `Subject.absent`."""
        return ground.postfix.why if isinstance(ground.postfix, Absent) else ""

    @contextlib.contextmanager
    def running(self, ground: Ground, task: Task) -> Iterator[SmtpSourceRun]:
        """See `Subject.running`."""
        assert isinstance(ground.postfix, Postfix)
        file = ground.folder / "mail.txt"
        _write_mail(file)
        # It has no settings that somebody could have forgotten: it is always the limit.
        sessions = _SLOW_SESSIONS if task.delay_seconds else _SESSIONS
        run = SmtpSourceRun(
            [
                *(str(ground.postfix.source), "-4", "-d", "-s", str(sessions), "-F", str(file)),
                *("-M", "bench.example.com", f"127.0.0.1:{task.smtp_port}"),
            ],
            ground.postfix,
        )
        try:
            yield run
        finally:
            run.stop()


def _write_mail(file: Path) -> None:
    """Write the same mail as the others send, as it is on the wire; smtp-source makes the line ends."""
    folder = mails.TEMPLATES / "email" / mails.TEMPLATE
    context = mails.context(1)

    def render(name: str) -> str:
        template = jinja2.Template((folder / name).read_text("utf-8"), autoescape=name.endswith("html"))
        return str(template.render(context))

    message = EmailMessage(policy=email.policy.SMTP.clone(linesep="\n"))
    message["From"], message["To"] = mails.SENDER, mails.recipient(1)
    message["Subject"] = render("subject.txt").strip()
    message.set_content(render("body.txt"))
    message.add_alternative(render("body.html"), subtype="html")
    file.write_bytes(message.as_bytes())
