"""Which addresses and URLs are called."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver

from notifier.callbacks.url_guard import CheckedResolver, ForbiddenAddress, is_public, url_problem


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "2a00:1450:4001:830::200e"])
def test_public_addresses_are_called(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1111%eth0",
        "fec0::1",
        "ff02::1",
        "not an address",
    ],
)
def test_other_addresses_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/notify?x=1",
        "https://hooks.example.com:8443/",
        "https://8.8.8.8/",
        "http://dev.test:9000/x",
        "https://dev.test:9000/",
        "https://DEV.test/",
        "https://bücher.example/",
        "https://hooks.example.com./",
    ],
)
def test_urls_that_are_called(url: str) -> None:
    assert url_problem(url, {"dev.test"}) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://hooks.example.com/", "not https"),
        ("ftp://hooks.example.com/", "not a URL of https"),
        ("https:///x", "not a URL"),
        ("https://hooks.example.com:99999/", "not a URL"),
        ("https://hooks.example.com:22/", "port"),
        ("https://ann:secret@hooks.example.com/", "user or a password"),
        ("https://ann@dev.test/", "user or a password"),
        ("https://127.0.0.1/", "at an address"),
        ("https://127.1/", "at an address"),
        ("https://2130706433/", "at an address"),
        ("https://0x7f.0.0.1/", "at an address"),
        ("https://0177.0.0.1/", "at an address"),
        ("https://127.0.0.1./", "at an address"),
        ("https://[::1]/", "at an address"),
        ("https://[::ffff:10.0.0.1]/", "at an address"),
        ("https://169.254.169.254/latest/meta-data", "at an address"),
        ("https://.test/", "not a domain name"),
        ("https://x..test/", "not a domain name"),
        ("https://my_hooks.example.com/", "not a domain name"),
        (f"https://{'a.' * 126}test/", "not a domain name"),
        (f"https://{'a' * 64}.test/", "not a domain name"),
    ],
)
def test_urls_that_are_refused(url: str, problem: str) -> None:
    assert problem in (url_problem(url, {"dev.test"}) or "")


def test_a_backslash_does_not_hide_the_host() -> None:
    assert url_problem("https://127.0.0.1\\@hooks.example.com/", ()) is not None


class Names(AbstractResolver):
    """Answers each look-up with the next list of addresses."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        return [{"hostname": host, "host": one, "port": port} for one in self.answers.pop(0)]

    async def close(self) -> None: ...


def test_one_private_address_among_others_is_enough_to_refuse_a_host() -> None:
    resolver = CheckedResolver((), Names(["8.8.8.8", "10.0.0.1"]))
    with pytest.raises(ForbiddenAddress):
        asyncio.run(resolver.resolve("hooks.example.com", 443))


def test_a_name_that_resolves_differently_the_second_time_is_checked_again() -> None:
    resolver = CheckedResolver((), Names(["8.8.8.8"], ["127.0.0.1"]))
    assert asyncio.run(resolver.resolve("hooks.example.com", 443))
    with pytest.raises(ForbiddenAddress):
        asyncio.run(resolver.resolve("hooks.example.com", 443))


def test_an_allowed_host_may_be_anywhere() -> None:
    assert asyncio.run(CheckedResolver({"dev.test"}, Names(["10.0.0.1"])).resolve("DEV.test", 443))
