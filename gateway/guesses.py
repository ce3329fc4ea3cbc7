"""Counts unknown and forged codes per terminal, so that guessing locks the guesser (design: 20 in 10 minutes, soft)."""

from collections import deque

GUESSES_MAX = 20  # NIST SP 800-63B throttles look-up secrets of 16 digits; honest tills rarely see two in a row
WINDOW_MS = 10 * 60_000
LOCK_MS = 10 * 60_000


class Guesses:
    """Times of the latest wrong codes of each terminal. Bounded: a terminal keeps at most GUESSES_MAX times."""

    def __init__(self) -> None:
        self._times: dict[int, deque[int]] = {}

    def wrong(self, terminal: int, now_ms: int) -> bool:
        """One more wrong code; True if this one is one too many (counting then starts afresh)."""
        times = self._times.setdefault(terminal, deque(maxlen=GUESSES_MAX))
        times.append(now_ms)
        if len(times) < GUESSES_MAX or now_ms - times[0] > WINDOW_MS:
            return False
        del self._times[terminal]
        return True
