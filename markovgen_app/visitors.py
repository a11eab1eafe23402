"""A politeness limit: every visitor has a bucket, of pictures or of sessions to rate them, that refills over time."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import time
from collections.abc import Callable, Mapping
from threading import Lock

from .errors import UserError


class VisitorLimit:
    """A token bucket a visitor, held in memory only.

    Args:
        burst: pictures, or what else is counted, that a visitor may ask for at once; 0 turns the limit off.
        per_minute: of them, that come back every minute.
        clock: seconds, monotonic.
        refusal: what the line says before it asks to wait.
    """

    def __init__(
        self,
        burst: int,
        per_minute: float,
        clock: Callable[[], float] = time.monotonic,
        refusal: str = "That is much work in a short time",
    ) -> None:
        self.burst, self.per_minute, self.clock, self._refusal = burst, per_minute, clock, refusal
        self._buckets: dict[str, tuple[float, float]] = {}  # visitor -> (pictures left, at this time)
        self._lock = Lock()

    def take(self, visitor: str | None, pictures: float) -> None:
        """Takes `pictures` from the visitor's bucket; None is a visitor without limit.

        More than a bucket holds takes a full one, and what is above that is paid back before there is more.

        Raises:
            UserError: if there are not that many left; says when there will be.
        """
        if not self.burst or visitor is None:
            return
        with self._lock:
            now = self.clock()
            left = min(self.burst, self._left(visitor, now))
            wanted = min(pictures, self.burst)
            if left < wanted:
                wait = math.ceil((wanted - left) * 60 / self.per_minute)
                raise UserError(f"{self._refusal}: please try again in {wait} seconds.")
            self._buckets[visitor] = (left - pictures, now)
            if len(self._buckets) > 4096:
                self._buckets = {
                    key: bucket for key, bucket in self._buckets.items() if self._left(key, now) < self.burst
                }

    def _left(self, visitor: str, now: float) -> float:
        left, then = self._buckets.get(visitor, (float(self.burst), now))
        return left + (now - then) * self.per_minute / 60


_SALT = secrets.token_bytes(16)


def visitor_at(address: str, headers: Mapping[str, str]) -> str | None:
    """A name for the visitor that lasts as long as the process: no address is kept. None on this machine itself.

    On Spaces every connection comes from a proxy, which writes the visitor's address in front of `X-Forwarded-For`.
    Elsewhere the header is believed only from proxies that the server trusts (on this machine, or those that
    FORWARDED_ALLOW_IPS names), which is done before a request comes here.
    """
    if os.environ.get("SPACE_ID"):
        address = headers.get("x-forwarded-for", address).split(",")[0].strip()
    elif address in ("127.0.0.1", "::1"):
        return None
    return hashlib.blake2b(address.encode(), key=_SALT, digest_size=12).hexdigest()
