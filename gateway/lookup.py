"""Reading what Valkey holds, beside a lane: the values, and whether they are as new as the log."""

from collections.abc import Sequence

from gateway.claims import Arbiter
from gateway.lane import Lane, LaneState


async def look_up(
    arbiter: Arbiter, lane: Lane, wanted: Sequence[tuple[bytes, bytes]]
) -> tuple[list[bytes | None], bool]:
    """Values of (hash key, field) pairs, and whether an absence among them is a fact.

    It is beside a head no older than the log's, from a lane that admits: one that recovers does not know yet what
    Valkey ought to hold. Who only looks up must also see that Valkey lost something, or no claim may ever come to see
    it: a typed code that nobody can find is never claimed. Raises ArbiterLost, ArbiterRefused.
    """
    admitting, durable_seq = lane.state is LaneState.ADMITTING, lane.durable_seq
    head, values = await arbiter.lookup(lane.partition, wanted)
    is_new = head.seq >= durable_seq
    if admitting and not is_new:
        lane.recover(f"Valkey is at batch {head.seq}, the log at {durable_seq}")
    return values, admitting and is_new
