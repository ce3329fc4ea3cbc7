"""Who may see the cashier's page and act on it.

Theory of operation. Any web page that is open on a till can send requests to the till's own page, and a name that its
owner points to 127.0.0.1 (DNS rebinding) makes them look as if they were of the same origin. So a request must name a
host that is ours, and whatever acts must come from a page that we served: its Origin is the host it asks. Beyond this
machine a device must be paired first: it sends eight digits that the till shows, once, and gets a cookie. The cookie is
its date and a keyed hash of it, so that none is stored here; a till with a new key knows no device any more.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

PAIR_DIGITS = 8
PAIR_MS = 10 * 60_000  # long enough to walk to the phone
PAIR_TRIES_MAX = 5  # of 100 million codes: a guess wins once in 20 million offers
PAIRED_S = 180 * 86_400  # half a year: a season, and then a look at who has one
RANDOM_BYTES = 8
_CONTEXT = b"tillgate-page-1"


def is_our_host(host: str, names: Collection[str]) -> bool:
    """Whether a Host header names us: `localhost`, one of `names`, or an address, which no rebinding can put there."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_our_page(origin: str, scheme: str, host: str) -> bool:
    """Whether an Origin header (RFC 6454) is that of the page itself. Browsers send one with whatever acts."""
    return bool(host) and origin.lower() == f"{scheme}://{host}".lower()


class Pairing:
    """One open offer at a time. Times are UTC epoch milliseconds."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._code = ""
        self._ends_ms = 0
        self._tries = 0

    def offer(self, now_ms: int, random: bytes) -> str:
        """Eight digits that pair one device; those offered before are void. `random`: 8 bytes."""
        assert len(random) == RANDOM_BYTES
        self._code = f"{int.from_bytes(random, 'big') % 10**PAIR_DIGITS:0{PAIR_DIGITS}d}"
        self._ends_ms, self._tries = now_ms + PAIR_MS, 0
        return self._code

    def take(self, code: str, now_ms: int) -> str | None:
        """The cookie of a newly paired device; None: a wrong code, or one that is void."""
        self._tries += 1
        if not self._code or now_ms >= self._ends_ms or self._tries > PAIR_TRIES_MAX:
            self._code = ""
            return None
        digits = "".join(c for c in code if c.isascii() and c.isdigit())
        if not hmac.compare_digest(digits.encode(), self._code.encode()):
            return None
        self._code = ""
        return self._cookie(now_ms // 1000)

    def knows(self, cookie: str, now_ms: int) -> bool:
        """Whether this cookie came from here, and is not too old."""
        paired, _, _ = cookie.partition(".")
        if not paired.isascii() or not paired.isdigit() or len(paired) > 12:
            return False
        fresh = now_ms // 1000 - int(paired) < PAIRED_S
        return fresh and hmac.compare_digest(cookie.encode("utf-8", "replace"), self._cookie(int(paired)).encode())

    def _cookie(self, paired_s: int) -> str:
        said = str(paired_s).encode()
        mac = hashlib.blake2b(said, key=self._secret, person=_CONTEXT, digest_size=32).hexdigest()
        return f"{paired_s}.{mac}"
