"""Checks where a webhook would go, against server-side request forgery (SSRF): parses its URL,
resolves the host and refuses private addresses."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ipaddress
import re
import socket
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import idna

from shared.errors import InvalidParameter

MAX_URL_LENGTH = 2000
MAX_NAME_LENGTH = 253

_PORTS = {"http": 80, "https": 443}
_NETLOC = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^][:]+))(:(?P<port>[0-9]{0,5}))?")
# No standard allows underscores in host names, but the names of many containers have them.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# `is_global` excludes most of these, but not all of them in every version of Python.
_SPECIAL = [
    ipaddress.ip_network(block)
    for block in (
        *("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15"),
        *("224.0.0.0/4", "240.0.0.0/4", "2001:db8::/32", "3fff::/20"),
    )
]


class PrivateAddress(Exception):
    """The URL's host has an address that is not public."""


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a webhook's URL. `host` is an address, or a name in lower-case ASCII."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Target:
        """Raises `InvalidParameter` for a URL that could never be posted to."""
        # Before `urlsplit`, which drops line breaks and tabs.
        if len(url) > MAX_URL_LENGTH or " " in url or not url.isprintable():
            raise _invalid(
                f"must have at most {MAX_URL_LENGTH} characters, without white space or control "
                "characters."
            )
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise _invalid(f"is not a valid URL ({error}).") from None
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise _invalid("must be an http or https URL.")
        if "@" in parts.netloc:
            raise _invalid("must not contain a user or password.")
        found = _NETLOC.fullmatch(parts.netloc)
        if found is None:
            raise _invalid("must have a valid host, followed by nothing but a port.")
        port = int(found["port"] or _PORTS[parts.scheme])
        if not 0 < port < 65536:
            raise _invalid("the port must be between 1 and 65535.")
        return cls(
            parts.scheme,
            _address(found["address"]) if found["address"] else _name(found["name"]),
            port,
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        )

    def netloc(self, host: str) -> str:
        """`host` and the port, as a URL and the `Host` header have them."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return (f"[{host}]" if ":" in host else host) + port

    def url_at(self, address: str) -> str:
        """The URL with an address instead of the host."""
        return f"{self.scheme}://{self.netloc(address)}{self.path}"

    def refuse_if_private(self) -> None:
        """Raise `InvalidParameter` if the host is private by its name or address, without DNS."""
        local = self.host == "localhost" or self.host.endswith(".localhost")
        if local or (_is_address(self.host) and not is_public(self.host)):
            raise _invalid(f"{self.host} is not a public address (WEBHOOK_ALLOW_PRIVATE is off).")

    async def resolve(self, *, allow_private: bool) -> str:
        """An address of the host. Raises `PrivateAddress` if any of them is not public."""
        addresses = await _resolve(self.host, self.port)
        if not allow_private:
            for address in addresses:
                if not is_public(address):
                    raise PrivateAddress(
                        f"{self.host} resolves to {address} (WEBHOOK_ALLOW_PRIVATE is off)"
                    )
        return addresses[0]


def is_public(address: str) -> bool:
    """Whether an address is public, and the IPv4 address inside of it too, if there is one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if embedded := _embedded(ip):
            return all(is_public(str(inner)) for inner in embedded)
        if ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not any(ip in block for block in _SPECIAL)


def _embedded(ip: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses that a packet to this IPv6 address goes to or through."""
    if ip.ipv4_mapped:
        return (ip.ipv4_mapped,)
    if ip.sixtofour:
        return (ip.sixtofour,)
    if ip in _NAT64:
        return (ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF),)
    return ip.teredo or ()


def _address(text: str) -> str:
    """The IPv6 address between square brackets, in its canonical form."""
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise _invalid("the address in square brackets is not a valid IPv6 address.") from None


def _name(text: str) -> str:
    """A host name in its DNS form, or an IPv4 address."""
    try:
        name = text if text.isascii() else idna.encode(text, uts46=True).decode()
    except UnicodeError as error:
        raise _invalid(f"the host name is not valid ({error}).") from None
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > MAX_NAME_LENGTH or not all(map(_LABEL.fullmatch, labels)):
        raise _invalid("the host name is not valid.")
    # The resolver reads 127.1, 0x7f000001 and 2130706433 as 127.0.0.1.
    if _NUMBER.fullmatch(labels[-1]) and not _is_address(name):
        raise _invalid("an IPv4 address must be four decimal numbers.")
    return name


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _invalid(why: str) -> InvalidParameter:
    return InvalidParameter(f"webhook_url: {why}")


async def _resolve(host: str, port: int) -> list[str]:
    """The addresses of a host. Raises `OSError` if it has none.

    A DNS query cannot be cancelled. Each runs in its own daemon thread, so that one that hangs
    delays neither the others nor the shutdown.
    """
    answer: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()

    def ask() -> None:
        answer.set_running_or_notify_cancel()
        try:
            # As bytes: Python would encode a string by the older IDNA 2003 rules.
            found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(found)

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    return [str(entry[4][0]) for entry in await asyncio.wrap_future(answer)]
