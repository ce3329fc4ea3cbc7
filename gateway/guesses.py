"""Counts unknown and forged codes per terminal, so that guessing locks the guesser (design: 20 in 10 minutes, soft)."""

from collections import deque

GUESSES_MAX = 20  # NIST SP 800-63B throttles look-up secrets of 16 digits; honest tills rarely see two in a row
WINDOW_MS = 10 * 60_000
LOCK_MS = 10 * 60_000


class Guesses:
    """The latest wrong codes of each terminal: when, and in which request, so that a retry is no second guess.

    Bounded: a terminal keeps at most GUESSES_MAX of them. `locking` holds terminals whose lock is decided but is not
    an event yet, so that a burst cannot outrun it.
    """

    def __init__(self) -> None:
        self._wrong: dict[int, deque[tuple[int, bytes]]] = {}
        self.locking: set[int] = set()

    def wrong(self, terminal: int, now_ms: int, request: bytes) -> bool:
        """One more wrong code; True if this one is one too many (counting then starts afresh)."""
        wrong = self._wrong.setdefault(terminal, deque(maxlen=GUESSES_MAX))
        if any(earlier == request for _, earlier in wrong):
            return False
        wrong.append((now_ms, request))
        if len(wrong) < GUESSES_MAX or now_ms - wrong[0][0] > WINDOW_MS:
            return False
        del self._wrong[terminal]
        return True
