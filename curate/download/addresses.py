"""Which addresses a crawler may connect to."""

from __future__ import annotations

import ipaddress

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa")


def is_public(address: str) -> bool:
    """Whether an IPv4 or IPv6 literal is a global unicast address, and so is any IPv4 inside it.

    Loopback, private, link-local, shared, multicast, reserved and documentation ranges are not
    public; neither is an IPv6 address that carries one of those (mapped, 6to4, Teredo, NAT64).
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _inner_ipv4(ip)
        if inner is not None:
            return is_public(str(inner))
        if ip in _LOCAL_NAT64:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def is_private_literal(host: str) -> bool:
    """Whether a URL's host is by itself known not to be public: a literal address or a local name.

    ``host`` is as the WHATWG parser gives it: decimal, octal and hex IPv4 are dotted already.
    """
    host = host.rstrip(".").lower()
    bare = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return any(host == name or host.endswith("." + name) for name in _LOCAL_NAMES)
    return not is_public(bare)


def _inner_ipv4(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    if ip in _NAT64 or int(ip) >> 32 == 0:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None
