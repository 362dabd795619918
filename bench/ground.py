"""The servers that all subjects share, started for a run and ended with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.postfix import find_postfix
from bench.servers import Postgres, make_rabbitmq
from bench.subjects import Ground
from notifier.dev.machine import make_temporary_folder
from tests.provisioning.commands import say


@contextmanager
def provisioned(parent: Path | None = None, keep: Path | None = None) -> Iterator[Ground]:
    """Servers in a folder below `parent`, which is removed with them; the programs' logs are copied to `keep`."""
    folder = make_temporary_folder(parent)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if keep:
            stack.callback(_copy_logs, folder, keep)
        postgres = Postgres(folder)
        stack.callback(postgres.stop)
        rabbitmq = make_rabbitmq(folder / "rabbitmq")
        stack.callback(rabbitmq.stop)
        say("starting PostgreSQL and RabbitMQ")
        postgres.start()
        rabbitmq.start()
        yield Ground(folder, postgres, rabbitmq, postgres.databases(), find_postfix())


def _copy_logs(folder: Path, keep: Path) -> None:
    logs = shutil.ignore_patterns("data", "run", "generated", "postgres", "download")
    shutil.copytree(folder, keep, dirs_exist_ok=True, ignore=logs)
