"""Signed statements that a platform was evicted, kept by every platform, so that none is forgotten.

    evict ─Eviction, signed by the coordinator→ every platform keeps it
    coordinator's list lacks one, after a restore ←─ every platform sends it ─→ evicted again

An eviction is final: the keys of an evicted platform never come back. So whoever shows a statement
with the coordinator's own signature is right, whenever it was signed, and the evicted platform
cannot keep the others from showing theirs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.errors import AuditError
from shared.files import replacing
from shared.signing import canonical, check, sign
from shared.strict_parsing import json_file

PURPOSE = "eviction"
MOST = 64  # statements in the coordinator's reply, the newest: some 20 kB of 64 kB
SENT = 8  # statements in a platform's request: some 3 kB; the rest comes with the next
KEPT = 4096  # statements in a file, the newest; some 1.3 MB
LARGEST = 2**22  # bytes of such a file
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Eviction:
    """One platform was shut out, for ever.

    Attributes:
        name: of the platform.
        signing_key: its public key, 64 hexadecimal digits.
        time: when, seconds since 1970.
        signature: the coordinator's of purpose "eviction" over the three above, 128 hex.
    """

    name: str
    signing_key: str
    time: float
    signature: str = ""

    @property
    def body(self) -> bytes:
        """What is signed."""
        return canonical({"name": self.name, "signing_key": self.signing_key, "time": self.time})

    def signed(self, key: Ed25519PrivateKey) -> Self:
        """The same with a signature."""
        return replace(self, signature=sign(key, PURPOSE, self.body))

    def check(self, public: str) -> None:
        """Whether the owner of this key signed it.

        Raises:
            IdentityError: not.
        """
        check(public, PURPOSE, self.body, self.signature)

    def as_dict(self) -> dict[str, float | str]:
        """Fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """A statement of what came as JSON; its signature is not checked here.

        Raises:
            AuditError: that is none.
        """
        name, key = fields.get("name"), fields.get("signing_key")
        time, signature = fields.get("time"), fields.get("signature")
        if (
            isinstance(name, str)
            and _NAME.fullmatch(name)
            and isinstance(key, str)
            and _KEY.fullmatch(key)
            and isinstance(time, float)
            and math.isfinite(time)
            and isinstance(signature, str)
        ):
            return cls(name, key, time, signature)
        raise AuditError("is no statement of an eviction", todo="use the same Atoll version")


class Evictions:
    """The statements that this machine keeps, in one file; none is ever taken out.

    Args:
        path: of the file; made by the first that is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[Eviction]:
        """What is kept, the oldest first.

        Raises:
            AuditError: the file cannot be read, or is damaged.
        """
        try:
            content = json_file(self.path, largest=LARGEST)
            return [Eviction.from_dict(fields) for fields in content["evictions"]]
        except FileNotFoundError:
            return []
        except OSError as fault:
            why = fault.strerror or type(fault).__name__
            raise AuditError(
                f"cannot be read ({why})", where=self.path, todo="mend its rights or its disk"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, AuditError):
            raise AuditError(
                "is damaged", where=self.path, todo="move it away; it is filled again"
            ) from None

    def lacking(self, listed: Sequence[Eviction]) -> list[Eviction]:
        """What is kept here and lacks in a reply of the coordinator, which lists the newest.

        Raises:
            AuditError: the file is damaged.
        """
        known = {eviction.signing_key for eviction in listed}
        since = min((it.time for it in listed), default=0.0) if len(listed) >= MOST else -math.inf
        return [it for it in self.all() if it.signing_key not in known and it.time >= since]

    def keep(self, statements: Iterable[Eviction], public: str) -> list[Eviction]:
        """Add those that are new; on the disk when this returns.

        Args:
            statements: as they came.
            public: the coordinator's key, 64 hex.

        Returns:
            Those that were new.

        Raises:
            IdentityError: a signature does not hold; nothing is kept then.
            AuditError: the file is damaged.
            ConfigError: it cannot be written.
        """
        kept = self.all()
        known = {eviction.signing_key for eviction in kept}
        new = list[Eviction]()
        for eviction in statements:
            if eviction.signing_key not in known:
                eviction.check(public)
                known.add(eviction.signing_key)
                new.append(eviction)
        if new:
            newest = sorted([*kept, *new], key=lambda eviction: eviction.time)[-KEPT:]
            content = {"evictions": [eviction.as_dict() for eviction in newest]}
            with replacing(self.path, private=True) as part:
                part.write_bytes(canonical(content) + b"\n")
        return new
