"""A private Postfix: a relay that accepts everything, and behind it a server with a single mailbox.

Its queue, configuration and log are in a separate folder, and its ports are free ones. A Postfix of the machine is
neither read nor changed. If none is installed, Debian's package is unpacked into a cache, as for the benchmark,
and runs from there under accounts that every Debian has.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.postfix import Absent, find_postfix
from notifier.dev.machine import free_port
from notifier.dev.processes import ServerProcess
from tests.waiting import patient

#: The owner of the queue, and the group that may put mail into it: Postfix's own accounts, or existing ones that
#: are not used otherwise.
_OWNERS = ("postfix", "news")
_GROUPS = ("postdrop", "uucp")
_QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "saved", "trace")

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = {daemons}
command_directory = {commands}
meta_directory = {folder}/conf
mail_owner = {owner}
setgid_group = {group}
import_environment = MAIL_CONFIG LANG=C LD_LIBRARY_PATH={libraries}
maillog_file = {folder}/log/mail.log
maillog_file_prefixes = {folder}/log
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
disable_dns_lookups = yes
smtpd_peername_lookup = no
mynetworks = 127.0.0.0/8
myhostname = relay.example.com
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
fast_flush_domains =
smtp_connection_cache_on_demand = no
notify_classes =
queue_minfree = 0
recipient_delimiter = +
virtual_mailbox_domains = example.net
virtual_mailbox_maps = inline:{{ {{ {mailbox} = zoe/ }} }}
virtual_mailbox_base = {folder}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
transport_maps = inline:{{
  {{ example.net = smtp:[127.0.0.1]:{behind} }},
  {{ example.com = lmtp:inet:127.0.0.1:{lmtp} }} }}
"""

_MASTER = """\
127.0.0.1:{front} inet n - n - - smtpd
  -o smtpd_reject_unlisted_recipient=no
127.0.0.1:{behind} inet n - n - - smtpd
  -o myhostname=mx.example.net
  -o content_filter=virtual:mailboxes
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True)
class Relay:
    """A running relay."""

    #: The relay's port: it accepts mail to anybody, and tries to pass it on.
    port: int
    #: The only address that exists at example.net.
    mailbox: str
    folder: Path

    @property
    def delivered(self) -> list[Path]:
        """The mails in its mailbox."""
        return sorted((self.folder / "mail" / "zoe" / "new").glob("*"))

    @property
    def log(self) -> str:
        """Its log, for people who look into a failed test."""
        return (self.folder / "log" / "mail.log").read_text("utf-8", "replace")


def why_not() -> str:
    """Why Postfix cannot run here; "" if it can."""
    if os.geteuid() != 0:
        return "Postfix gives each of its programs another user, so only root can run it"
    if not _first(_OWNERS, pwd.getpwnam) or not _first(_GROUPS, grp.getgrnam):
        return f"none of the users {', '.join(_OWNERS)} or none of the groups {', '.join(_GROUPS)} exists"
    found = find_postfix()
    return found.why if isinstance(found, Absent) else ""


@contextmanager
def running_postfix(lmtp_port: int, mailbox: str = "zoe@example.net") -> Iterator[Relay]:
    """Run Postfix. Mail to example.com is sent to `lmtp_port`."""
    found = find_postfix()
    assert not isinstance(found, Absent)
    # Not below pytest's folder, which only root can enter.
    folder = Path(tempfile.mkdtemp(prefix="notifier-postfix-"))
    front, behind = free_port(), free_port()
    owner, group = _first(_OWNERS, pwd.getpwnam), _first(_GROUPS, grp.getgrnam)
    user = pwd.getpwnam(owner)
    root = found.sink.parents[2]
    _make_folders(folder, user.pw_uid, grp.getgrnam(group).gr_gid)
    values = {
        "folder": folder,
        "daemons": root / "usr/lib/postfix/sbin",
        "commands": root / "usr/sbin",
        "libraries": root / "usr/lib/postfix",
        "owner": owner,
        "group": group,
        "uid": user.pw_uid,
        "gid": user.pw_gid,
        "mailbox": mailbox,
        "front": front,
        "behind": behind,
        "lmtp": lmtp_port,
    }
    (folder / "conf" / "main.cf").write_text(_MAIN.format_map(values))
    (folder / "conf" / "master.cf").write_text(_MASTER.format_map(values))
    server = ServerProcess(
        "Postfix",
        [root / "usr/lib/postfix/sbin/master", "-d", "-c", folder / "conf"],
        log=folder / "log" / "master.log",
        stop_plan=[(signal.SIGTERM, 20)],
        cwd=folder,
        env={**found.environment, "MAIL_CONFIG": str(folder / "conf")},
    )
    try:
        server.start()
        server.wait_until(lambda: all(map(_answers, (front, behind))), timeout_seconds=30)
        yield Relay(front, mailbox, folder)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make_folders(folder: Path, uid: int, postdrop: int) -> None:
    folder.chmod(0o755)
    for name in ("conf", "log", "queue", "queue/pid"):
        (folder / name).mkdir()
    for name, mode in {
        **{f"queue/{name}": 0o700 for name in (*_QUEUES, "private")},
        "queue/maildrop": 0o730,
        "queue/public": 0o710,
        "data": 0o700,
        "mail": 0o755,
    }.items():
        path = folder / name
        path.mkdir()
        path.chmod(mode)
        os.chown(path, uid, postdrop if name in ("queue/maildrop", "queue/public") else -1)


def _first(names: tuple[str, ...], look: object) -> str:
    for name in names:
        try:
            look(name)  # type: ignore[operator]
        except KeyError:
            continue
        return name
    return ""


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patient(10)) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False
