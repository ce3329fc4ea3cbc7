"""Which of the five cases a partition is in, by table."""

import pytest

from eventstore.log import EMPTY_HEAD, ZERO_TIP, Batch, Head
from gateway.recovery import Branch, plan


def tip(n: int) -> bytes:
    return n.to_bytes(16, "big")


def chain(first: int, last: int, *, fork: int = 0) -> list[Batch]:
    """Batches first..last of the chain whose tips are their numbers; `fork` shifts the tips: another chain."""
    return [
        Batch(0, n, tip(n - 1 + fork) if n > 1 else ZERO_TIP, tip(n + fork), b"", b"") for n in range(first, last + 1)
    ]


LOG = Head(5, tip(5))


@pytest.mark.parametrize(
    ("valkey", "tip_there", "stream", "branch"),
    (
        (LOG, tip(5), [], Branch.READY),
        (EMPTY_HEAD, None, [], Branch.BEHIND),
        (Head(3, tip(3)), tip(3), [], Branch.BEHIND),
        (Head(3, tip(9)), tip(3), [], Branch.FORKED),
        (Head(5, tip(9)), tip(5), [], Branch.FORKED),
        (Head(7, tip(7)), None, chain(6, 7), Branch.AHEAD),
        (Head(7, tip(7)), None, [], Branch.HALT),
        (Head(7, tip(7)), None, chain(7, 7), Branch.HALT),
        (Head(8, tip(8)), None, chain(6, 7), Branch.HALT),
        (Head(8, tip(8)), None, chain(6, 6) + chain(8, 8), Branch.HALT),
        (Head(7, tip(107)), None, chain(6, 7, fork=100), Branch.FORKED),
        (Head(7, tip(8)), None, chain(6, 7), Branch.HALT),
    ),
)
def test_the_case_is_told_from_heads_and_stream(
    valkey: Head, tip_there: bytes | None, stream: list[Batch], branch: Branch
) -> None:
    assert plan(LOG, valkey, tip_there, stream) is branch


def test_two_empty_sides_are_ready() -> None:
    assert plan(EMPTY_HEAD, EMPTY_HEAD, None, []) is Branch.READY


def test_valkey_ahead_of_an_empty_log_joins_only_from_the_first_batch() -> None:
    assert plan(EMPTY_HEAD, Head(2, tip(2)), None, chain(1, 2)) is Branch.AHEAD
    assert plan(EMPTY_HEAD, Head(2, tip(2)), None, chain(2, 2)) is Branch.HALT
