"""Tokens: JSON Web Tokens of an issuer that the gateway trusts, and those that LiveKit gives to who may join a room.

Which algorithm counts is decided by the key, never by the token: HS256 for a shared secret; for a key of the JWKS file
the one that its type and curve stand for. `exp` is always required.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from common.errors import AccessDenied
from services.gateway.access.caller import CONVERSATION, SCOPES, TALKING, Caller
from services.gateway.access.limits import Limits

MIN_SECRET_BYTES = 32
"""What HS256 needs (RFC 7518, section 3.2)."""
MAX_TOKEN_CHARACTERS = 8192
_NAME_CHARACTERS = 64
_ALGORITHM_OF_TYPE = {"RSA": "RS256"}
_ALGORITHM_OF_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


@dataclass(frozen=True)
class Issuer:
    """Whose tokens are taken. Nothing of it is ever printed."""

    name: str | None = None
    audience: str | None = None
    leeway_s: float = 10.0


@dataclass(frozen=True)
class Key:
    """One that tokens are verified with."""

    algorithm: str
    material: Any

    def __repr__(self) -> str:
        return f"Key({self.algorithm})"


class Tokens:
    """`keys` by their id; the one without an id verifies tokens that name none."""

    def __init__(self, keys: Mapping[str | None, Key], issuer: Issuer, limits: Limits) -> None:
        self._keys = dict(keys)
        self._issuer = issuer
        self._limits = limits

    def caller(self, token: str) -> Caller:
        """Who shows it. `AccessDenied` says why not, in words that help its owner and nobody else."""
        claims = self._claims(token)
        scopes = _scopes(claims)
        subject = claims.get("sub") or claims.get("client_id") or "anonymous"
        return Caller(f"jwt:{_name(subject)}", TALKING if scopes is None else scopes, self._limits)

    def _claims(self, token: str) -> dict[str, Any]:
        issuer = self._issuer
        key = self._key(token)
        return decoded(token, key, audience=issuer.audience, issuer=issuer.name, leeway_s=issuer.leeway_s)

    def _key(self, token: str) -> Key:
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError:
            raise AccessDenied("This is no token.") from None
        if key_id is not None and key_id in self._keys:
            return self._keys[key_id]
        if None in self._keys:
            return self._keys[None]
        raise AccessDenied("The key of this token is not known here.")


class LiveKitTokens:
    """Tokens that let somebody join a room: signed with the API secret of a LiveKit server that is also ours."""

    def __init__(self, api_key: str, api_secret: str, limits: Limits, leeway_s: float = 10.0) -> None:
        self.api_key = api_key
        self._key = Key("HS256", api_secret)
        self._limits = limits
        self._leeway_s = leeway_s

    def is_one(self, token: str) -> bool:
        """Whether it says that it is one of ours; `caller` finds out."""
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            return False
        return claims.get("iss") == self.api_key and isinstance(claims.get("video"), dict)

    def caller(self, token: str) -> Caller:
        """Who shows it. Only a token that lets its owner join a room does here."""
        claims = decoded(token, self._key, audience=None, issuer=self.api_key, leeway_s=self._leeway_s)
        if claims["video"].get("roomJoin") is not True:
            raise AccessDenied("This token does not let its owner join a room.")
        return Caller(f"livekit:{_name(claims.get('sub') or 'anonymous')}", frozenset({CONVERSATION}), self._limits)


def decoded(token: str, key: Key, *, audience: str | None, issuer: str | None, leeway_s: float) -> dict[str, Any]:
    """The claims of a token that this key signed and that holds now. `AccessDenied` for any other."""
    try:
        return dict(
            jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                audience=audience,
                issuer=issuer,
                leeway=leeway_s,
                options={"require": ["exp"], "verify_aud": audience is not None},
            )
        )
    except jwt.ExpiredSignatureError:
        raise AccessDenied("This token has expired.", why="expired") from None
    except jwt.ImmatureSignatureError:
        raise AccessDenied("This token does not hold yet.", why="immature") from None
    except jwt.InvalidAudienceError:
        raise AccessDenied("This token is for somebody else.", why="audience") from None
    except jwt.InvalidIssuerError:
        raise AccessDenied("This token is from somebody else.", why="issuer") from None
    except jwt.MissingRequiredClaimError as error:
        raise AccessDenied(f"This token lacks the claim {error.claim}.", why="claim") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise AccessDenied("This token was not signed by whom we trust.", why="signature") from None


def keys_of_jwks(path: Path) -> dict[str | None, Key]:
    """The keys of a JWKS file. ValueError says what is wrong with it."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["keys"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"the JWKS file {path} must be JSON with a list of `keys`") from None
    keys: dict[str | None, Key] = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        algorithm = _ALGORITHM_OF_TYPE.get(entry.get("kty", "")) or _ALGORITHM_OF_CURVE.get(entry.get("crv", ""))
        if algorithm is None or entry.get("alg", algorithm) != algorithm or "d" in entry:
            raise ValueError(f"the JWKS file {path} must hold public keys for RS256 or ES256 (ES384, ES512)")
        try:
            keys[entry.get("kid")] = Key(algorithm, jwt.PyJWK(entry, algorithm).key)
        except (jwt.PyJWTError, ValueError):
            raise ValueError(f"the JWKS file {path} holds a key that is none") from None
    if not keys:
        raise ValueError(f"the JWKS file {path} holds no key to verify with")
    return keys


def _scopes(claims: Mapping[str, Any]) -> frozenset[str] | None:
    """What it allows; None when it does not say. Words that mean nothing here are somebody else's."""
    said = claims.get("scope", claims.get("scopes", claims.get("scp")))
    if said is None:
        return None
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    return frozenset(word for word in words if isinstance(word, str)) & SCOPES


def _name(subject: object) -> str:
    return "".join(character for character in str(subject) if character.isprintable())[:_NAME_CHARACTERS]
