"""How far behind its log a projection is, in seconds, from positions alone."""

from collections import deque

MARKS_MAX = 512  # one a second is nearly nine minutes to the second; further back every other mark will do


class Lag:
    """Feed it (now, newest position, applied position) about once a second."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()  # when the log was seen to reach a position, oldest first

    def seconds(self, now_s: float, newest: int, applied: int) -> float:
        """Age of the oldest position seen and not applied; never less than the truth by more than a feeding's gap."""
        while self._marks and self._marks[0][1] <= applied:
            self._marks.popleft()
        if newest > applied and (not self._marks or self._marks[-1][1] < newest):
            self._marks.append((now_s, newest))
            if len(self._marks) > MARKS_MAX:
                self._marks = deque([*self._marks][::2])  # the oldest stays: it is the one that tells
        return now_s - self._marks[0][0] if self._marks else 0.0
