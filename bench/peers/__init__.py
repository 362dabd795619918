"""What people would use instead, each set up as a good engineer would: README.md says how and why."""

from __future__ import annotations

from bench.peers import celery, post_office
from bench.peers.smtp_source import SmtpSource
from bench.subjects import Subject


def all_peers() -> list[Subject]:
    """In the order of bench/latest.json. The second tuning is for a server that takes 100 ms for each mail."""
    return [
        celery.CeleryPeer(
            "celery_naive",
            celery.Tuning(workers=1, pool="prefork", concurrency=4),
            celery.Tuning(workers=1, pool="prefork", concurrency=16),
        ),
        celery.CeleryPeer(
            "celery_tuned",
            celery.Tuning(workers=2, pool="threads", concurrency=4),
            celery.Tuning(workers=2, pool="threads", concurrency=50),
        ),
        post_office.PostOffice(
            post_office.Tuning(processes=2, threads=5, batch=1000),
            post_office.Tuning(processes=2, threads=50, batch=2000),
        ),
        SmtpSource(),
    ]
