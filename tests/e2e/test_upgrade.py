"""An upgrade in the order of the handbook: the tables first, while programs of the version before go on."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Self

import pytest

from notifier import Client
from notifier.domain.statuses import Channel, Lane
from notifier.rendering import Renderer
from notifier.store.engine import make_engine
from notifier.store.schema.revisions import missing_upgrade, revisions
from notifier.store.schema.table_locks import LOCK_SECONDS
from notifier.store.schema.upgrade import upgrade
from notifier.store.search import Filter
from tests.support.next_version import NEXT_REVISION, write_next_revisions
from tests.support.service import Service, running_service
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

CONTEXT = Renderer(Path(__file__).parents[2] / "templates").template(Channel.EMAIL, "receipt").samples[0].context


class Load:
    """Publishes about 50 messages a second until it is stopped."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._stop = Event()
        self._thread = Thread(target=self._publish)
        self.published = 0

    def _publish(self) -> None:
        with Client(self._broker_url, producer="shop", timeout_seconds=10) as client:
            while not self._stop.wait(0.02):
                to = f"user{self.published}@example.com"
                client.send("receipt", to, context=CONTEXT, lane=Lane.URGENT)
                self.published += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_programs_wait_for_their_tables_and_go_on_beside_the_next_versions(
    empty_database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    url = empty_database_url
    with running_service(url, amqp_url, tmp_path / "service") as service:
        for name in ("intake", "worker-urgent", "worker-normal"):
            log = service.programs.logs[name]
            wait_until(partial(says, log, "run `notifier db upgrade`"), timeout=60)
        upgrade(url)
        with Load(amqp_url) as load:
            wait_until(lambda: service.count("sent") > 20, timeout=60)
            before = service.programs.pids
            upgrade(url, more_revisions=write_next_revisions(tmp_path / "next"))
            already = service.count("sent")
            wait_until(lambda: service.count("sent") > already + 100, timeout=60)
        assert_all_went_out_once_and_soon(service, load.published)
        assert service.programs.pids == before
    engine = make_engine(url)
    # Programs of this version may start on it, too, and its `db upgrade` leaves it alone.
    assert missing_upgrade(engine) is None
    assert upgrade(url) == []
    assert revisions(engine)[0] == NEXT_REVISION
    engine.dispose()


def assert_all_went_out_once_and_soon(service: Service, total: int) -> None:
    wait_until(lambda: service.count("sent") == total, timeout=60)
    assert service.audit.rejected() == []
    arrived = Counter(mail.rcpt_to[0] for mail in service.mail.messages)
    assert set(arrived.values()) == {1}
    assert len(arrived) == total
    # Nobody waits for longer than the upgrade may wait for a lock; a busy machine gets its share of time as well.
    rows = service.audit.search(Filter(), limit=10_000)
    assert all(row.attempt_count == 1 for row in rows)
    waits = [row.sent_at - row.accepted_at for row in rows if row.sent_at]
    assert max(waits) < timedelta(seconds=LOCK_SECONDS + 10)


def says(log: Path, words: str) -> bool:
    return words in log.read_text()
