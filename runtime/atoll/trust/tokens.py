"""Join tokens: how an island that has no certificate yet gets one.

A token is a line of text that an operator hands to whoever is to join. It says where the job's
coordinator signs certificates, by which authority to know that coordinator, and proves, once and
for a short time, that the operator meant it. It names the job and, if so made, the island, and
says when it was made: what is revoked later voids it (`enrollment`).

    atoll2.<payload>.<proof>

payload and proof are base64url; the payload is JSON with the keys of `Token`. The proof is
HMAC-SHA256 of the payload, keyed with the authority's private key: whoever holds the authority
makes and checks tokens, with nothing to share between the two. That a token is used once is for the
coordinator to remember, until it expires (`membership`: it is part of the job's state).

Pure: time and randomness are arguments.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from atoll.config import parse_addresses
from atoll.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

PREFIX = "atoll2"
PURPOSE = "join"
MAX_TOKEN = 4096
"""Characters."""
MAX_LIFE_S = 7 * 24 * 3600.0


class TokenRefused(Exception):
    """Why a token is not good, in words for who holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token says. `id`: 32 hexadecimal digits, drawn for each. `enroll`: HOST:PORT, or
    several with commas. `authority`: SHA-256 of its certificate, in hex. `made_s`, `expires_s`:
    Unix time."""

    id: str
    job: str
    island: str
    enroll: str
    authority: str
    made_s: float
    expires_s: float
    purpose: str = PURPOSE


def encode(token: Token, key: bytes) -> str:
    """The token as text; `key` is from `proof_key`."""
    payload = json.dumps(asdict(token), sort_keys=True, separators=(",", ":")).encode()
    return f"{PREFIX}.{_to64(payload)}.{_to64(_proof(payload, key))}"


def read(text: str) -> Token:
    """What a token says, believed by nobody yet. Raises TokenRefused for what is none."""
    return _parse(text)[0]


def verify(text: str, key: bytes, *, job: str, now_s: float) -> Token:
    """A token that this authority made for this job and that has not expired.

    Raises TokenRefused. Whether it was used before is not known here.
    """
    token, payload, proof = _parse(text)
    if not hmac.compare_digest(proof, _proof(payload, key)):
        raise TokenRefused("the token was not made by this job's authority")
    if token.purpose != PURPOSE:
        raise TokenRefused(f"the token is for another purpose: {token.purpose!r}")
    if token.job != job:
        raise TokenRefused(f"the token is for job '{token.job}', this is job '{job}'")
    if now_s >= token.expires_s:
        ago_s = now_s - token.expires_s
        raise TokenRefused(
            f"the token expired {ago_s:.0f} s ago; ask the operator for a new one: atoll token"
        )
    return token


def proof_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key of the proofs, 32 bytes, from the authority's private key."""
    secret = key.private_numbers().private_value.to_bytes(32, "big")
    return hmac.digest(secret, b"atoll join tokens, version 1", "sha256")


def check_life(seconds: float) -> float:
    """Raises ConfigError for a life that is none, or too long for something that is passed on."""
    if not 0 < seconds <= MAX_LIFE_S:
        raise ConfigError(
            f"a token lives for more than 0 s and at most {MAX_LIFE_S / 86400:g} days, "
            f"not {seconds:g} s"
        )
    return seconds


def _parse(text: str) -> tuple[Token, bytes, bytes]:
    text = text.strip()
    pieces = text.split(".")
    if len(pieces) == 3 and re.fullmatch(r"atoll\d+", pieces[0]) and pieces[0] != PREFIX:
        raise TokenRefused(
            f"the token is of another version of atoll, it begins with '{pieces[0]}.' and not with "
            f"'{PREFIX}.'; have the same atoll on both machines, and make a new token: atoll token"
        )
    if len(text) > MAX_TOKEN or len(pieces) != 3 or pieces[0] != PREFIX:
        raise TokenRefused(f"not a join token: it must begin with '{PREFIX}.' and be whole")
    try:
        payload, proof = _from64(pieces[1]), _from64(pieces[2])
        token = _checked(json.loads(payload))
    except (ValueError, binascii.Error, RecursionError):
        raise TokenRefused("the token is damaged; copy all of it") from None
    return token, payload, proof


def _checked(values: Any) -> Token:
    """Raises ValueError."""
    if not isinstance(values, dict) or set(values) != set(Token.__slots__):
        raise ValueError("other keys than a token has")
    for key, value in values.items():
        wanted = (int, float) if key in ("made_s", "expires_s") else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"{key} has the wrong type")
    token = Token(**values)
    if len(token.id) != 32 or len(token.authority) != 64:
        raise ValueError("id or authority has the wrong length")
    bytes.fromhex(token.id + token.authority)
    parse_addresses(token.enroll)
    return token


def _proof(payload: bytes, key: bytes) -> bytes:
    return hmac.digest(key, payload, hashlib.sha256)


def _to64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from64(text: str) -> bytes:
    padded = text.encode("ascii") + b"=" * (-len(text) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)
