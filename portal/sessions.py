"""Tells who is asking: session tokens, passwords, and how soon one may guess again."""

import hmac
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import bcrypt
import jwt

from passport.errors import Fatal
from passport.settings import Portal

OPERATOR = "operator"
FORGOTTEN_S = 900.0
# Compared with where there is no user: it takes the same time, so that nobody learns who has one.
_NOBODYS_HASH = bcrypt.hashpw(b"nobody has this one", bcrypt.gensalt(12))
# A comparison takes a quarter of a second of one core: not more than two at once.
_COMPARISONS = threading.Semaphore(2)


class Sessions:
    """Makes and checks the tokens of patients and of operators.

    A patient's token is the Passport's own, HS256 with its secret. An operator's is signed with
    another key. Raises Fatal if no secret is set.
    """

    def __init__(self, settings: Portal) -> None:
        if settings.jwt_secret is None:
            raise Fatal(
                "portal.jwt_secret is not set: nobody could sign in",
                hint="set PASSPORT_PORTAL__JWT_SECRET to the Passport's JWT_SECRET "
                "(32 characters or more)",
            )
        self._key = settings.jwt_secret.get_secret_value().encode()
        self._hash = settings.operators.password_hash
        self.lasting = timedelta(hours=settings.session_hours)

    def token(self, user_id: str) -> str:
        return self._signed({"userId": user_id}, self._key)

    def user_id(self, token: str) -> tuple[str, float] | None:
        """Return (hex of users._id, Unix time of the session's end), or None for a false token."""
        claims = _claims(token, self._key)
        user_id = claims and claims.get("userId")
        if not claims or not isinstance(user_id, str) or not _is_hex(user_id):
            return None
        return user_id, float(claims["exp"])

    @property
    def operators(self) -> bool:
        """Is True if there is an operators' page: a password for it is set."""
        return self._hash is not None

    def operator_token(self) -> str:
        return self._signed({"sub": OPERATOR}, self._operator_key())

    def is_operator(self, token: str) -> bool:
        claims = _claims(token, self._operator_key()) if self.operators else None
        return claims is not None and claims.get("sub") == OPERATOR

    def is_operators_password(self, password: str) -> bool:
        return self._hash is not None and fits(password, self._hash.get_secret_value())

    def _operator_key(self) -> bytes:
        # The password's hash is part of the key, so that another password ends all sessions.
        secret = self._hash.get_secret_value() if self._hash else ""
        return hmac.new(self._key, f"operators {secret}".encode(), sha256).digest()

    def _signed(self, claims: dict[str, Any], key: bytes) -> str:
        now = datetime.now(UTC)
        return jwt.encode(claims | {"iat": now, "exp": now + self.lasting}, key, algorithm="HS256")


def _claims(token: str, key: bytes) -> dict[str, Any] | None:
    try:
        return jwt.decode(token, key, algorithms=["HS256"], options={"require": ["exp"]})
    except (jwt.InvalidTokenError, ValueError, OverflowError):
        return None


def _is_hex(text: str) -> bool:
    return len(text) == 24 and not set(text) - set("0123456789abcdef")


def hashed(password: str) -> str:
    """Return the bcrypt hash of a password, for `portal.operators.password_hash`."""
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(12)).decode()


def fits(password: str, hashed: str | None) -> bool:
    """Return whether a bcrypt hash is that of `password`. Without a hash it takes as long."""
    compared = hashed.encode() if hashed else _NOBODYS_HASH
    with _COMPARISONS:
        try:
            # bcrypt looks at 72 bytes; the client raises on more.
            return bcrypt.checkpw(password.encode()[:72], compared) and hashed is not None
        except ValueError:
            return False


class Throttle:
    """Slows down the guessing of passwords.

    After `free` wrong passwords each next one has to wait twice as long, up to `longest_s`. A
    quarter of an hour without an attempt forgets them. The attempts of at most `size` keys are kept
    in memory.
    """

    def __init__(self, free: int = 5, longest_s: float = 60, size: int = 20_000) -> None:
        self._free = free
        self._longest = longest_s
        self._size = size
        # By key: how many attempts, and when the last one was. The oldest key comes first.
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def attempt(self, key: str) -> float:
        """Return the seconds to wait. With 0, go on: the attempt counts as wrong until `right`."""
        now = time.monotonic()
        with self._lock:
            count, last = self._wrong.get(key, (0, now))
            if now - last > FORGOTTEN_S:
                count = 0
            pause = min(self._longest, 2.0 ** (count - self._free)) if count >= self._free else 0.0
            if now < last + pause:
                return last + pause - now
            self._wrong[key] = count + 1, now
            self._wrong.move_to_end(key)
            if len(self._wrong) > self._size:
                self._wrong.popitem(last=False)
        return 0

    def right(self, key: str) -> None:
        """Take back that the last attempt counted as wrong."""
        with self._lock:
            count, last = self._wrong.get(key, (1, 0.0))
            self._wrong[key] = max(0, count - 1), last
