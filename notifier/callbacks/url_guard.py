"""Decides which addresses callbacks may call: none inside the networks of this service.

Producers name URLs, and a name resolves to whatever its owner wants, which may differ from one second to the next.
So all addresses of a name are checked in the same step that passes them to the connection. There is no second
look-up between the check and the call.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from notifier.callbacks.name_servers import NameServers
from notifier.domain.recipient_identity import ascii_domain
from notifier.providers.system_resolver import SystemResolver

#: Allowed ports for https. With others, this service would be a port scanner.
PORTS = frozenset({443, 8443})

# What `is_global` allows in some Python versions, and forms that wrap an IPv4 address.
_FORBIDDEN = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",  # shared by carriers; Alibaba Cloud's metadata
            "168.63.129.16/32",  # Azure's own server, at a public address
            "192.0.0.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "198.18.0.0/15",
            "240.0.0.0/4",
            "::/96",  # unspecified, loopback, IPv4-compatible
            "::ffff:0:0/96",  # IPv4-mapped
            "::ffff:0:0:0/96",  # IPv4-translated
            "64:ff9b::/96",  # NAT64
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",  # Teredo, and addresses reserved for protocols
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "3fff::/20",
            "5f00::/16",
            "fc00::/7",
            "fec0::/10",
        ),
    )
)


class ForbiddenAddress(Exception):
    """The host is, or resolves to, an address that must not be called."""

    # Not an OSError: aiohttp would take it for a name that cannot be looked up.


def is_public(text: str) -> bool:
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return False
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False
    return not any(address.version == network.version and address in network for network in _FORBIDDEN)


def url_problem(text: str, allowed: Collection[str]) -> str | None:
    """Why the URL must not be called; None: nothing that can be seen without a look-up. A host in `allowed` may
    use http, any port and any address."""
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        return "is not a URL"
    if not host or url.scheme not in ("http", "https"):
        return "is not a URL of https"
    if url.user is not None or url.password is not None:
        return "has a user or a password in it"
    if host.lower() in allowed:
        return None
    if url.scheme != "https":
        return "is not https"
    if port not in PORTS:
        return f"has a port other than {' and '.join(map(str, sorted(PORTS)))}"
    if _is_number(host):
        return None if is_public(host) else "is at an address that is not called"
    try:
        ascii_domain(host.removesuffix("."))
    except ValueError:
        return "has a host that is not a domain name"
    return None


def _is_number(host: str) -> bool:
    # The rule of browsers (https://url.spec.whatwg.org/#ends-in-a-number-checker): 127.1 and 0x7f000001 are
    # addresses.
    last = host.rstrip(".").rpartition(".")[2].lower()
    return ":" in host or last.isdigit() or last.startswith("0x")


class CheckedResolver(AbstractResolver):
    """Looks up names, and refuses those with any address that is not public, unless they are in `allowed`."""

    def __init__(self, allowed: Collection[str], names: AbstractResolver | None = None) -> None:
        self._allowed = allowed
        self._names = names or NameServers()
        self._system = SystemResolver(socket.AI_ADDRCONFIG)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look up a host. Raises `ForbiddenAddress` if an address is not public, and whatever
        `NameServers.resolve` raises."""
        is_allowed = host.lower() in self._allowed
        try:
            found = await self._names.resolve(host, port, family)
        except TimeoutError:
            raise
        except OSError:
            if not is_allowed:
                raise
            # The operator's own host: the system may know it without name servers (nsswitch.conf).
            found = await self._system.resolve(host, port, family)
        if not is_allowed and not all(is_public(one["host"]) for one in found):
            raise ForbiddenAddress
        return found

    async def close(self) -> None:
        """Does nothing: nothing is kept open."""
        await self._names.close()
