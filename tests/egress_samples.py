"""What the tests of the guarded way out try: bad and good addresses, and the ways to spell them.

The seeds are those of the reliability plan (section 6.3) and of the holes of other servers that it lists.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD_V4: Final = (
    *("0.0.0.0", "0.1.2.3", "0.255.255.255"),  # noqa: S104 - an address to refuse
    *("10.0.0.0", "10.1.2.3", "10.255.255.255"),
    *("100.64.0.0", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.0.0.53", "127.1.2.3", "127.255.255.255"),
    "168.63.129.16",
    *("169.254.0.1", "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.255.255"),
    *("172.16.0.1", "172.31.255.255"),
    *("192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.0.255"),
    *("192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.0", "192.168.1.1", "192.168.255.255"),
    *("192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
)
BAD_V6: Final = (
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1"),
    *("::ffff:0:8.8.8.8", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1"),
    *("64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff::127.0.0.1", "100::1", "100:0:0:1::1"),
    *("2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:7f00:1::", "2001:2::1", "2001:10::1", "2001:20::1"),
    *("2001:1ff:ffff::1", "2001:db8::", "2001:db8:ffff::1", "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::1"),
    *("2002:c0a8:101::1", "2620:4f:8000::1", "3ffe::1", "3fff::1", "3fff:fff::1", "5f00::1", "4000::1", "8000::1"),
    *("fc00::1", "fd00::1", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fe80::1", "fe80::a9fe:a9fe"),
    *("febf::1", "fec0::1", "feff::1", "ff02::1", "ff0e::1", "ffff::1"),
    *("2606:4700::5efe:127.0.0.1", "2606:4700::200:5efe:10.0.0.1", "2606:4700:1:2:0:5efe:a9fe:a9fe"),
)
GOOD_V4: Final = (
    *("1.0.0.0", "1.1.1.1", "8.8.8.8", "8.8.4.4", "9.9.9.9", "9.255.255.255", "11.0.0.0", "93.184.216.34"),
    *("100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "140.82.121.4", "151.101.1.140"),
    *("168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0"),
    *("172.217.16.142", "185.199.108.153", "191.255.255.255", "192.0.1.0", "192.0.3.0", "192.31.195.255"),
    *("192.31.197.0", "192.52.192.1", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0"),
    *("192.175.47.1", "192.175.49.1", "198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0"),
    *("203.0.112.255", "203.0.114.0", "208.80.154.224", "223.255.255.255"),
)
GOOD_V6: Final = (
    *("2606:4700:4700::1111", "2001:4860:4860::8888", "2620:fe::fe", "2a00:1450:4001:82f::200e", "2001:200::1"),
    *("2001:db7:ffff::1", "2001:db9::1", "2003::1", "2400:cb00:2048:1::1", "2620:4f:7fff::1", "2620:4f:8001::1"),
    *("2a04:4e42::81", "2c0f:fb50::1", "3000::1", "3ffd::1", "3fff:1000::1", "::ffff:8.8.8.8", "64:ff9b::808:808"),
    *("2002:808:808::1", "2606:4700::5efe:8.8.8.8", "2000::1"),
)
GOOD_NAMES: Final = (
    *(
        "example.com",
        "EXAMPLE.com",
        "www.example.co.uk",
        "a.b.c.d.example.org",
        "example.com.",
        "under_score.example.org",
    ),
    *("_dmarc.example.org", "xn--bcher-kva.example", "bücher.example", "BÜCHER.example", "例え.テスト", "пример.рф"),
    *("faß.example", "मानक.भारत", "3com.com", "1.2.3.com", "127.0.0.1.example.com", "0x7f.example.com", "x--y.example"),
    *("localhost.example.com", "metadata.example", "a1.example", "1and1.com", "s3-eu-west-1.example", "ünï.example"),
    *("wiki", "a" * 63 + ".example", ".".join(["abcdefgh"] * 28)),
)
GOOD_TARGETS: Final = (
    *(
        "",
        "/",
        "/a/b?c=d&e=%20f",
        "?q=1",
        "/#part",
        "/%00",
        "/%0d%0aHost:x",
        "/ü/日本?q=ö",
        "/a@b",
        "/http://127.0.0.1/",
    ),
    *("/?url=http://169.254.169.254/", "/{x}|y", "/..;/a", "//127.0.0.1/", "/a:b@c", '/"quoted"', "/[x]"),
)

# Not IPv4 to us and not a name; something else may read an address in each.
_WIDE: Final = str.maketrans({character: chr(ord(character) + 0xFEE0) for character in "0123456789."})
_CIRCLED: Final = str.maketrans("0123456789", "⓪①②③④⑤⑥⑦⑧⑨")


def spell_v4(address: str) -> Iterator[str]:
    """Yield hosts that mean the IPv4 address to one program or another."""
    a, b, c, d = (int(part) for part in address.split("."))
    number = int(ipaddress.IPv4Address(address))
    high, low = number >> 16, number & 0xFFFF
    yield from (address, f"{address}.", f"{a}.{b}.{c << 8 | d}", f"{a}.{b << 16 | c << 8 | d}", str(number))
    yield from (hex(number), f"{number:#o}".replace("0o", "0"), f"{a:#x}.{b:#x}.{c:#x}.{d:#x}", f"0{a:o}.{b}.{c}.{d}")
    yield from (f"{a:03}.{b:03}.{c:03}.{d:03}", f"{a}.{b}.{c}.{d + 256}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}")
    yield from (address.replace(".", "。"), address.replace(".", "\uff0e"), address.translate(_WIDE))
    yield from (address.translate(_CIRCLED), address.replace(".", "%2e"), f"{address}%00", f"{address}%00.example.com")
    yield from (f"[::ffff:{address}]", f"[::ffff:{high:x}:{low:x}]", f"[::{address}]", f"[::ffff:0:{address}]")
    yield from (f"[64:ff9b::{address}]", f"[2002:{high:x}:{low:x}::]", f"[2606:4700::5efe:{address}]")
    yield from (f"[0:0:0:0:0:ffff:{high:x}:{low:x}]", f"[::ffff:{address}%25lo]", f"[{address}]")


def spell_v6(address: str) -> Iterator[str]:
    """Yield hosts that mean the IPv6 address to one program or another."""
    whole = ipaddress.IPv6Address(address).exploded
    yield from (f"[{address}]", f"[{whole}]", f"[{whole.upper()}]", f"[{address}%25lo]", f"[{address}%lo]", address)


def odd_urls(host: str, port: int) -> Iterator[str]:
    """Yield whole URLs in which one program or another sees `host` and another does not."""
    at = f"{host}:{port}"
    yield from (f"http://example.com@{at}/", f"http://{at}\\@example.com/", f"http://example.com\\@{at}/")
    yield from (f"http:{at}/", f"http:/{at}/", f"//{at}/", f"http:///{at}/", f"http:\\\\{at}/", f"\thttp://{at}/")
    yield from (f"http://\t{at}/", f"http://{at[:2]}\n{at[2:]}/", f"http://user:pass@{at}/", f"http://@{at}/", at)
    yield from (f"http://example.com:80@{at}/", f"http://example.com#@{at}/x@", f"http://[{at}", f"http://{at}:80/")
    yield from (f"ftp://{at}/", f"gopher://{at}/_x", f"file://{at}/etc/passwd", f"ws://{at}/", f"javascript://{at}/")
    yield from (f"http://{at} /", f"http://{at}\x00.example.com/", f"http://{host}:0{port}/", f"http://{host}:{port}x/")
    yield from (f"http://{host}:+{port}/", f"http://{host}:{port + 65536}/", f"http://example.com\u2028@{at}/")
