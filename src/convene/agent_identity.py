"""Keys and addresses of agents: secp256k1, written in bech32 as the `uagents` library writes them (ID). Pure.

    Identity.from_seed(secret) ──► address `agent1q...`     sign_digest ──► `sig1...`
    verify_digest(address, digest, signature) ──► whether it fits; whatever it is given, it raises nothing

On libsecp256k1: some 20 us to sign and as much to verify, where the library's pure Python takes 1 to 2 ms (ID-08), so
signatures may be checked on the loop. It refuses signatures of the greater of the two values that are equally right,
which the library writes half of the time, so those are turned round before.
"""

from __future__ import annotations

import functools
import hashlib
import operator
from typing import Final

from coincurve import PrivateKey, PublicKey
from coincurve.ecdsa import cdata_to_der, deserialize_compact, serialize_compact, signature_normalize
from coincurve.ecdsa import der_to_cdata as cdata_of

ADDRESS: Final = "agent"
USER: Final = "user"
SIGNATURE: Final = "sig"
KEY_BYTES: Final = 33
SIGNATURE_BYTES: Final = 64
ADDRESS_LENGTH: Final = 65
LENGTH_MAX: Final = 200
SEEDS: Final = 256

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_CHECK: Final = 6
_GROUP: Final = 5
"""Bits of a letter."""
_NONE: Final = 255
_VALUES: Final = bytes(_ALPHABET.find(chr(code)) & _NONE for code in range(256))
"""A letter's code to its value; 255 for a letter that is none (`find` says -1)."""
_DIGITS: Final = b"0123456789abcdefghijklmnopqrstuv".ljust(256, b"-")
"""A value to the digit that `int` reads in base 32: two passes in C instead of a loop over bits."""
_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_STEPS: Final = tuple(
    functools.reduce(operator.xor, (one for place, one in enumerate(_GENERATORS) if top >> place & 1), 0)
    for top in range(32)
)
"""What the check sum takes in for each value of the five bits that it lets go (BIP 173)."""


class Identity:
    """One key pair."""

    __slots__ = ("_key", "address")

    def __init__(self, key: bytes) -> None:
        """Take the 32 bytes of a private key. Raises ValueError if they are none."""
        self._key = PrivateKey(key)
        self.address = address_of(self._key.public_key.format(compressed=True))

    @classmethod
    def from_seed(cls, seed: str, index: int = 0) -> Identity:
        """Return the identity of a seed: the same one each time, and as the library derives it (ID-02)."""
        if not 0 <= index < SEEDS:
            raise ValueError("an index has one byte")
        prefix = hashlib.sha256(ADDRESS.encode() + bytes([index])).digest()
        return cls(hashlib.sha256(prefix + hashlib.sha256(seed.encode()).digest()).digest())

    def sign(self, data: bytes) -> str:
        """Return the signature of the hash of these bytes (ID-04)."""
        return self.sign_digest(hashlib.sha256(data).digest())

    def sign_digest(self, digest: bytes) -> str:
        """Return the signature of a digest of 32 bytes."""
        signature = cdata_of(self._key.sign(digest, hasher=None))
        return encode_bech32(SIGNATURE, serialize_compact(signature))


def address_of(public_key: bytes) -> str:
    """Return the address of a compressed public key."""
    return encode_bech32(ADDRESS, public_key)


def is_user_address(address: str) -> bool:
    """Whether it is the address of somebody without a key, who can sign nothing (ID-05)."""
    return address.startswith(USER)


def verify_digest(address: str, digest: bytes, signature: str) -> bool:
    """Whether a signature of a digest is that of an address. Never raises (ID-04)."""
    try:
        key_prefix, key = decode_bech32(address)
        prefix, compact = decode_bech32(signature)
        if key_prefix != ADDRESS or prefix != SIGNATURE or len(key) != KEY_BYTES or len(compact) != SIGNATURE_BYTES:
            return False
        _, normal = signature_normalize(deserialize_compact(compact))
        return PublicKey(key).verify(cdata_to_der(normal), digest, hasher=None)
    except (ValueError, TypeError):
        return False


def encode_bech32(prefix: str, data: bytes) -> str:
    """Return bytes as `prefix1...`."""
    letters = -(-len(data) * 8 // 5)
    number = int.from_bytes(data, "big") << letters * 5 - len(data) * 8
    values = bytes(number >> 5 * place & 31 for place in range(letters - 1, -1, -1))
    total = _checksum(bytes((*_spread(prefix), *values, *bytes(_CHECK)))) ^ 1
    check = [(total >> 5 * (_CHECK - 1 - place)) & 31 for place in range(_CHECK)]
    return f"{prefix}1{''.join(_ALPHABET[value] for value in (*values, *check))}"


def decode_bech32(text: str) -> tuple[str, bytes]:
    """Return prefix and bytes. Raises ValueError."""
    if len(text) > LENGTH_MAX or text != text.lower():
        raise ValueError("too long, or not in small letters")
    prefix, mark, letters = text.rpartition("1")
    if not mark or not prefix or len(letters) < _CHECK or not text.isascii():
        raise ValueError("not bech32")
    values = letters.encode().translate(_VALUES)
    if _NONE in values:
        raise ValueError("a letter that is none of bech32")
    if _checksum(_spread(prefix) + values) != 1:
        raise ValueError("the check sum does not fit")
    held = values[:-_CHECK]
    left = len(held) * 5 % 8
    if left >= _GROUP or (left and held[-1] & ((1 << left) - 1)):
        raise ValueError("bits are left over")
    number = int(held.translate(_DIGITS) or b"0", 32) >> left
    return prefix, number.to_bytes(len(held) * 5 // 8, "big")


def _spread(prefix: str) -> bytes:
    return bytes((*(ord(letter) >> 5 for letter in prefix), 0, *(ord(letter) & 31 for letter in prefix)))


def _checksum(values: bytes) -> int:
    total, table = 1, _STEPS
    for value in values:
        total = (total & 0x1FFFFFF) << 5 ^ value ^ table[total >> 25]
    return total
