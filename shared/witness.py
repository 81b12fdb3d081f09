"""The ledger's signature under its chain: with one, a message or a page proves every event up to its last position.

Ed25519 (RFC 8032) over the text `source`, `position` and `chain` in hexadecimal, each on a line of its own.
"""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.chain import ChainAt
from shared.errors import CorruptStore

KEY_BYTES = 32


def new_key() -> bytes:
    """32 secret bytes, and the 32 public ones that belong to them."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes_raw() + key.public_key().public_bytes_raw()


class Signer:
    """Signs for the ledger `source` with its `key`, as `new_key` makes it. Raises `CorruptStore` when that is none."""

    def __init__(self, source: str, key: bytes) -> None:
        secret = Ed25519PrivateKey.from_private_bytes(key[:KEY_BYTES])
        self.public_key = secret.public_key().public_bytes_raw()
        if key[KEY_BYTES:] != self.public_key:
            raise CorruptStore(
                "the two halves of the ledger's key do not belong together. Put a good copy of the log in its place."
            )
        # Those who follow the ledger all ask for its last page: 50 µs for each of them.
        self.sign = lru_cache(maxsize=64)(lambda at: secret.sign(_statement(source, at)))


def is_signed(signature: bytes, public_key: bytes, source: str, at: ChainAt) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _statement(source, at))
    except (InvalidSignature, ValueError):
        return False
    return True


def _statement(source: str, at: ChainAt) -> bytes:
    return f"{source}\n{at.position}\n{at.chain.hex()}".encode()
