"""What the database server promises about commits, and whether it takes writes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, text

from notifier.store.engine import transaction

_STATE = text("""
    SELECT current_setting('transaction_read_only') = 'off' AS takes_writes,
           current_setting('synchronous_commit') AS synchronous_commit,
           current_setting('synchronous_standby_names') AS standby_names
""")

#: Values of synchronous_commit for which a commit waits for a standby's disk.
_WAITS = ("on", "remote_apply")


@dataclass(frozen=True, slots=True)
class ServerState:
    takes_writes: bool
    #: The value in our sessions.
    synchronous_commit: str
    #: Empty: commits wait for no standby.
    standby_names: str

    @property
    def is_durable(self) -> bool:
        """Whether a confirmed commit is on the server's own disk."""
        return self.synchronous_commit != "off"

    @property
    def waits_for_standby(self) -> bool:
        """Whether a confirmed commit is on a standby's disk, too."""
        return bool(self.standby_names.strip()) and self.synchronous_commit in _WAITS


def server_state(engine: Engine) -> ServerState:
    """The state of the server. Raises `ServiceUnavailable` if the database cannot be asked now."""
    with transaction(engine) as connection:
        row = connection.execute(_STATE).one()
    return ServerState(row.takes_writes, row.synchronous_commit, row.standby_names)
