"""The service as real processes: `notifier intake`, workers and Beat, on a test's own database and broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from notifier.dev.programs import PROGRAMS, Programs
from notifier.dev.smtp_server import MailServer, Rule, running_mail_server
from notifier.dev.twilio_server import TwilioRule, TwilioServer, running_twilio_server
from notifier.store.engine import make_engine
from notifier.store.search import Audit, Filter
from tests.support import forking


@dataclass
class Service:
    """Everything that a test wants to look at."""

    broker_url: str
    audit: Audit
    mail: MailServer
    twilio: TwilioServer
    programs: Programs

    def count(self, status: str) -> int:
        """The number of notifications with this status now."""
        return sum(row.count for row in self.audit.count() if row.status == status)

    def only(self) -> str:
        """The status of the only notification; "" while there is none."""
        rows = self.audit.search(Filter(), limit=2)
        assert len(rows) < 2
        return rows[0].status if rows else ""


@contextmanager
def running_service(
    database_url: str,
    broker_url: str,
    folder: Path,
    *,
    mail_rules: Sequence[Rule] = (),
    sms_rules: Sequence[TwilioRule] = (),
    environment: Mapping[str, str] | None = None,
    own: Mapping[str, Mapping[str, str]] | None = None,
    callbacks: bool = False,
) -> Iterator[Service]:
    """Start all programs, including `callbacks` if wanted. At the end stop them, and fail if one ended by itself.

    `own`: program → variables for this program only.
    """
    wanted = {name: started for name, started in PROGRAMS.items() if callbacks or name != "callbacks"}
    engine = make_engine(database_url)
    with (
        running_mail_server(MailServer(mail_rules)) as mail,
        running_twilio_server(TwilioServer(sms_rules)) as twilio,
    ):
        programs = Programs(
            {
                "NOTIFIER_DATABASE_URL": database_url,
                "NOTIFIER_BROKER_URL": broker_url,
                "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{mail.port}?starttls=never",
                "NOTIFIER_TWILIO_ACCOUNT_SID": twilio.account_sid,
                "NOTIFIER_TWILIO_AUTH_TOKEN": twilio.auth_token,
                "NOTIFIER_TWILIO_API_BASE": twilio.url,
                "NOTIFIER_DATA_DIR": str(folder),
                **(environment or {}),
            },
            folder / "logs",
            own,
            wanted,
            launch=forking.launch,
        )
        programs.start()
        try:
            yield Service(broker_url, Audit(engine), mail, twilio, programs)
            dead = [name for name, is_running in programs.running.items() if not is_running]
            logs = "\n".join((folder / "logs" / f"{name}.log").read_text()[-3000:] for name in dead)
            assert not dead, f"{dead} died:\n{logs}"
        finally:
            programs.stop()
            engine.dispose()
