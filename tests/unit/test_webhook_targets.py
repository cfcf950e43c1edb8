"""Where webhooks may go: URLs at submission, addresses at sending."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.webhook_sender import check_url
from api.webhook_targets import PrivateAddress, Target, is_public
from shared.errors import InvalidParameter
from shared.settings import Settings
from tests.support.receivers import SECRET

GUARDED = Settings(webhook_secret=SECRET)
OPEN = Settings(webhook_secret=SECRET, webhook_allow_private=True)


@pytest.mark.parametrize(
    "address",
    [
        # IPv4: this network, private, shared, loopback, link-local (with the clouds' metadata),
        "0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1",
        "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        # protocol assignments, documentation, 6to4 relays, benchmarks, multicast, reserved.
        "192.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.2.1", "198.51.100.1", "203.0.113.1",
        "192.88.99.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "239.255.255.255",
        "240.0.0.1", "255.255.255.255",
        # IPv6: unspecified, loopback, link-local, site-local, unique local, multicast,
        "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "feff::1", "fc00::1", "fd12:3456::1",
        "ff02::1", "ff0e::1",
        # discard, documentation, segment routing, and blocks that nobody was given.
        "100::1", "2001:db8::1", "3fff::1", "5f00::1", "4000::1", "1::1",
        # An IPv4 address inside: compatible, mapped, translated, NAT64 (also a local one),
        "::127.0.0.1", "::10.0.0.1", "::1.1.1.1", "::ffff:127.0.0.1", "::ffff:10.1.2.3",
        "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254", "64:ff9b:1::1.1.1.1", "64:ff9b:1::127.0.0.1",
        # 6to4, and Teredo with a private client or server.
        "2002:7f00:1::", "2002:a01:203::1", "2002:c0a8:101::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:0:a00:1:0:0:fefe:fefe",
    ],
)  # fmt: skip
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "8.8.8.8", "93.184.215.14", "100.63.255.255", "100.128.0.1", "172.15.255.255",
        "172.32.0.1", "192.0.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255",
        "2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2001:4860:4860::8888",
        "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1",
        "2001:0:4136:e378:8000:63bf:fefe:fefe",
    ],
)  # fmt: skip
def test_what_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        # other schemes, no host
        "", "nonsense", "//example.com/", "ftp://example.com/", "file:///etc/passwd",
        "javascript:alert(1)", "http:", "http://", "http:///path", "http://:80/",
        "http:example.com",
        # users
        "http://user:pw@example.com/", "http://user@example.com/", "http://@example.com/",
        "http://example.com\\@evil.example/",
        # brackets
        "http://[::1", "http://::1]/", "http://[::1]]/", "http://[::1]x/", "http://[::1]:80:80/",
        "http://a:80:80/", "http://[]/", "http://[v1.a]/",
        "http://[127.0.0.1]/", "http://[example.com]/", "http://[fe80::1%25eth0]/",
        # ports
        "http://example.com:0/", "http://example.com:65536/", "http://example.com:99999/",
        "http://example.com:-1/", "http://example.com:http/", "http://example.com:8 0/",
        # white space, control characters, and what cannot be seen
        "http://exam ple.com/", "http://example.com/a b", " http://example.com/",
        "http://exam\nple.com/", "http://exam\rple.com/", "http://exam\tple.com/",
        "http://example.com/\r\nX-Header: 1", "http://example.com/\x00", "http://example.com/\x7f",
        "http://example.com/\x85", "http://example.com/\u3000", "http://example.com/\u200b",
        "http://example.com/\u202e", "http://example.com\n",
        # names
        "http://a..b/", "http://.example.com/", "http://example.com../", "http://./",
        "http://-example.com/", "http://example-.com/", "http://exa!mple.com/",
        "http://%6c%6fcalhost/", "http://a%00b/", f"http://{'a' * 64}.com/",
        f"http://{'a' * 73}.example/", f"http://{'a.' * 126}com/", "http://bü..de/", "http://-ü-.de/",
        f"http://{'ü' * 64}.de/", "http://a\u2100b/", "http://\u00ad/",
        # addresses that only some programs read as such
        "http://127.1/", "http://2130706433/", "http://0x7f.0.0.1/", "http://0x7f000001/",
        "http://0177.0.0.1/", "http://1.2.3.4.5/", "http://256.1.1.1/", "http://1.1.1.1.0x/",
        f"http://example.com/{'a' * 2000}",
    ],
)  # fmt: skip
def test_what_could_never_be_posted_to_is_refused(url: str) -> None:
    for settings in (GUARDED, OPEN):
        with pytest.raises(InvalidParameter, match="webhook_url: "):
            check_url(url, settings)


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST", "localhost.", "app.localhost", "\uff4cocalhost", "127.0.0.1",
        "127.0.0.1.", "\uff1127.0.0.1", "10.0.0.5", "192.168.0.10", "169.254.169.254", "0.0.0.0",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[fd00::1]", "[fe80::1]", "[64:ff9b::7f00:1]",
    ],
)  # fmt: skip
def test_what_is_plainly_private_is_refused_unless_allowed(host: str) -> None:
    with pytest.raises(InvalidParameter, match="WEBHOOK_ALLOW_PRIVATE"):
        check_url(f"http://{host}:8080/hook", GUARDED)
    check_url(f"http://{host}:8080/hook", OPEN)


@pytest.mark.parametrize(
    ("url", "host", "header", "posted"),
    [
        ("http://example.com", "example.com", "example.com", "http://192.0.2.1/"),
        ("HTTPS://Example.COM./a?b=c#d", "example.com", "example.com", "https://192.0.2.1/a?b=c"),
        ("http://example.com:/", "example.com", "example.com", "http://192.0.2.1/"),
        ("https://example.com:443/", "example.com", "example.com", "https://192.0.2.1/"),
        ("https://x.example:80/", "x.example", "x.example:80", "https://192.0.2.1:80/"),
        ("http://my_app:8080?q", "my_app", "my_app:8080", "http://192.0.2.1:8080/?q"),
        ("http://bücher.de/ü", "xn--bcher-kva.de", "xn--bcher-kva.de", "http://192.0.2.1/ü"),
        ("http://faß.de/", "xn--fa-hia.de", "xn--fa-hia.de", "http://192.0.2.1/"),
        ("http://例え。テスト/", "xn--r8jz45g.xn--zckzah", "xn--r8jz45g.xn--zckzah",
         "http://192.0.2.1/"),
        ("http://xn--bcher-kva.de/", "xn--bcher-kva.de", "xn--bcher-kva.de", "http://192.0.2.1/"),
        ("http://r3---sn-4g5e6.example/", "r3---sn-4g5e6.example", "r3---sn-4g5e6.example",
         "http://192.0.2.1/"),
        ("http://1.1.1.1:9/", "1.1.1.1", "1.1.1.1:9", "http://192.0.2.1:9/"),
        ("http://[2606:4700::0001]:8080/", "2606:4700::1", "[2606:4700::1]:8080",
         "http://192.0.2.1:8080/"),
        (f"http://{'a' * 63}.example/", f"{'a' * 63}.example", f"{'a' * 63}.example",
         "http://192.0.2.1/"),
    ],
)  # fmt: skip
def test_what_is_posted_to(url: str, host: str, header: str, posted: str) -> None:
    check_url(url, GUARDED)
    target = Target.parse(url)
    assert target.host == host
    assert target.netloc(target.host) == header
    assert target.url_at("192.0.2.1") == posted
    assert target.url_at("2001:db8::1").startswith(f"{target.scheme}://[2001:db8::1]")


@given(
    st.one_of(
        st.text(max_size=60).map("http://".__add__),
        st.text("aü.-_:/?#[]@%0x1 \\", max_size=30).map("https://".__add__),
        st.text(max_size=60),
    )
)
@example("http://[::1")
@example("http://a:99999999999999999999/")
@example("http://a/\ud800")
def test_whatever_is_accepted_can_be_posted_to(url: str) -> None:
    try:
        target = Target.parse(url)
    except InvalidParameter:
        return
    request = httpx.Request(
        "POST", target.url_at("192.0.2.1"), headers={"Host": target.netloc(target.host)}
    )
    assert request.url.host == "192.0.2.1"
    assert request.url.port in (target.port, None)
    assert httpx.URL(f"http://{target.netloc(target.host)}/").raw_host == target.host.encode()


def _answer(*addresses: str) -> Any:
    return lambda host, port, **_: [
        (socket.AF_INET6 if ":" in address else socket.AF_INET, 1, 6, "", (address, port))
        for address in addresses
    ]


def test_one_private_address_among_several_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target.parse("http://rebound.example/")
    monkeypatch.setattr(socket, "getaddrinfo", _answer("1.1.1.1", "64:ff9b::7f00:1"))
    with pytest.raises(PrivateAddress, match="64:ff9b::7f00:1"):
        asyncio.run(target.resolve(allow_private=False))
    assert asyncio.run(target.resolve(allow_private=True)) == "1.1.1.1"
    monkeypatch.setattr(socket, "getaddrinfo", _answer("1.1.1.1", "2606:4700:4700::1111"))
    assert asyncio.run(target.resolve(allow_private=False)) == "1.1.1.1"


def test_a_look_up_that_fails_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match="no such name"):
        asyncio.run(Target.parse("http://nowhere.example/").resolve(allow_private=True))


def test_a_look_up_that_hangs_holds_up_neither_its_deadline_nor_the_end_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, returned = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        release.wait(60)
        returned.set()
        return []

    async def run() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Target.parse("http://slow.example/").resolve(allow_private=True)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        asyncio.run(run())
        assert not returned.is_set()
    finally:
        release.set()
    assert returned.wait(10)
