"""The program that runs django-post_office: reads one command per line, answers `done`.

`fill N` queues N mails; `send` is the management command `send_queued_mail`, as cron runs it.
"""

from __future__ import annotations

import os
import sys
import time

import django
from django.core.management import call_command

from bench import mails

_BATCH = 1000


def main() -> None:
    """Until standard input ends."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "bench.peers.post_office.settings"
    django.setup()
    call_command("migrate", verbosity=0)
    template = _make_template()
    _answer("ready")
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        begun = time.monotonic()
        if command == "fill":
            _fill(template, int(argument))
        else:
            call_command("send_queued_mail", processes=int(argument), lockfile=os.environ["BENCH_LOCK"])
        _answer(f"done {time.monotonic() - begun:.3f}")


def _make_template() -> object:
    from post_office.models import EmailTemplate

    folder = mails.TEMPLATES / "email" / mails.TEMPLATE
    texts = {name: (folder / name).read_text("utf-8") for name in ("subject.txt", "body.txt", "body.html")}
    return EmailTemplate.objects.create(
        name=mails.TEMPLATE,
        subject=texts["subject.txt"].strip(),
        content=texts["body.txt"],
        html_content=texts["body.html"],
    )


def _fill(template: object, count: int) -> None:
    from post_office import mail

    for start in range(0, count, _BATCH):
        entries = [
            {
                "recipients": [mails.recipient(number)],
                "sender": mails.SENDER,
                "template": template,
                "context": mails.context(number),
                # As with the other subjects, the text is made when the mail is sent.
                "render_on_delivery": True,
            }
            for number in range(start, min(start + _BATCH, count))
        ]
        mail.send_many(entries)


def _answer(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
