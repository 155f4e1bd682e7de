from __future__ import annotations

import pytest

from curate.download.addresses import is_private_literal, is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.0.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
        "2002:7f00:1::1", "not an address", "",
    ],
)  # fmt: skip
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "151.101.1.69", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True), ("[::1]", True), ("localhost", True), ("LOCALHOST.", True),
        ("a.localhost", True), ("printer.local", True), ("metadata.google.internal", True),
        ("example.com", False), ("localhost.example.com", False), ("notlocal", False), ("8.8.8.8", False),
        ("[2606:4700::1111]", False),
    ],
)  # fmt: skip
def test_literals(host: str, private: bool) -> None:
    assert is_private_literal(host) is private
