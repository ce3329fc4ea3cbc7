"""Copy a log into another one, batch by batch, each checked on its way: a backup, its continuation, its restoration.

A log only ever grows, so a copy that was made before is continued and never made anew; it is at every moment a log that
was true at some moment before. The control partition comes last: the copy then knows every campaign, terminal and issue
that one of its vouchers refers to.
"""

from collections.abc import Callable

import msgspec

from eventstore.log import CONTROL, EMPTY_HEAD, EventLog, Head, LogReader

RUN_BATCHES = 500  # one durable append of the copy; at most some MB


class Diverged(Exception):
    """The copy holds something that the source does not: it is of another log, or the source has lost its tail."""

    def __init__(self, partition: int, seq: int) -> None:
        where = "the control partition" if partition == CONTROL else f"partition {partition}"
        super().__init__(f"{where} of the copy has a batch {seq} that the source does not have")
        self.partition, self.seq = partition, seq


class Copied(msgspec.Struct, frozen=True):
    """What the copy got, and where it ends now."""

    batches: int
    heads: dict[int, Head]


async def copy_log(source: LogReader, copy: EventLog, on_run: Callable[[int], None] = lambda batches: None) -> Copied:
    """Bring `copy` up to where `source` is now. `on_run` hears of each durable run.

    Raises Diverged before it writes anything, and LogDamaged of a batch that does not match its checksum or its chain;
    what came before it is in the copy then.
    """
    partitions = [*range(source.partitions), CONTROL]
    for partition in partitions:
        await _check_joins(source, copy, partition)
    batches, heads = 0, {}
    for partition in partitions:
        head = await copy.head(partition)
        while run := await source.read(partition, head.seq + 1, RUN_BATCHES):
            await copy.append(run)
            head = Head(run[-1].seq, run[-1].tip)
            batches += len(run)
            on_run(len(run))
        heads[partition] = head
    return Copied(batches, heads)


async def _check_joins(source: LogReader, copy: EventLog, partition: int) -> None:
    head = await copy.head(partition)
    if head == EMPTY_HEAD:
        return
    held = await source.read(partition, head.seq, 1)
    if not held or held[0].tip != head.tip:
        raise Diverged(partition, head.seq)
