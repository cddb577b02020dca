"""A Token: one word that lets one platform in, once, and leads it to the right server.

atoll1. ‖ base64url( secret 16 ‖ expiry 8 ‖ CA certificate ‖ checksum 4 )

It reaches the platform by another way than the network that it secures: mail, a call, a visit.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from cryptography import x509

from shared.errors import IdentityError
from shared.trust import pem

PREFIX = "atoll1."


@dataclass(frozen=True)
class Token:
    """What a coordinator gives to a platform.

    Attributes:
        secret: 16 random bytes, good for one platform, once.
        expires: seconds since 1970.
        ca: the CA of the server's certificate, DER.
    """

    secret: bytes
    expires: int
    ca: bytes

    @property
    def roots(self) -> bytes:
        """What the first connection trusts, PEM."""
        return pem([x509.load_der_x509_certificate(self.ca)])

    def __str__(self) -> str:
        body = self.secret + self.expires.to_bytes(8, "big") + self.ca
        whole = body + hashlib.sha256(body).digest()[:4]
        return PREFIX + base64.urlsafe_b64encode(whole).decode().rstrip("=")

    def __repr__(self) -> str:
        return f"Token(expires={self.expires})"  # no secret in a log or a traceback

    @classmethod
    def read(cls, text: str) -> Token:
        """The Token that was printed.

        Raises:
            IdentityError: it is none, or was cut or mistyped.
        """
        word = "".join(text.split())  # mail breaks long lines
        try:
            if not word.startswith(PREFIX):
                raise ValueError
            packed = word.removeprefix(PREFIX)
            whole = base64.b64decode(packed + "=" * (-len(packed) % 4), b"-_", validate=True)
            body, sum_ = whole[:-4], whole[-4:]
            if hashlib.sha256(body).digest()[:4] != sum_:
                raise ValueError
            token = cls(body[:16], int.from_bytes(body[16:24], "big"), body[24:])
            x509.load_der_x509_certificate(token.ca)
        except Exception:  # of a certificate its maker chooses which kind
            raise IdentityError(
                "this is no token, or not all of it",
                todo=f"copy the whole word that begins with {PREFIX}",
            ) from None
        return token
