"""Which shoppers and items of a table are kept: by a hash of the name.

So nobody's chance depends on anybody else, and a larger limit or part only adds.
"""

from __future__ import annotations

from hashlib import blake2b

from shared.errors import ConfigError

Part = tuple[float, float]  # shares from 0 to 1; the second is outside
WHOLE: Part = (0.0, 1.0)
SHOPPERS = b"atoll limit 1"  # one key for all: a shopper of two platforms is in both or neither
ITEMS = b"atoll items 1"


def shoppers_key(draw: int) -> bytes:
    """The key of a draw of shoppers; 0 is SHOPPERS."""
    return SHOPPERS + (b" %d" % draw if draw else b"")


def drawn(name: str, key: bytes) -> bytes:
    """The place of a name in the draw."""
    return blake2b(name.encode(), key=key, digest_size=16).digest()


def within(part: Part, name: str, key: bytes) -> bool:
    """Whether the place of a name, as a share from 0 to 1, falls into a part."""
    return part[0] <= int.from_bytes(drawn(name, key)[:6], "big") / 2**48 < part[1]


def checked(part: Part, where: str) -> Part:
    """The part.

    Raises:
        ConfigError: it is none.
    """
    if not 0 <= part[0] < part[1] <= 1:
        raise ConfigError(
            f"part {list(part)} is none", where=where, todo="give two shares, the smaller first"
        )
    return part
