"""The log in memory: the model every durable backend is compared with, and the log of tests that need no file."""

from collections.abc import Sequence

from eventstore.log import CONTROL, EMPTY_HEAD, PARTITIONS_MAX, AppendRefused, Batch, Head, check_join, run_partition


class MemoryLog:
    """An EventLog that forgets everything when it is dropped."""

    def __init__(self, partitions: int) -> None:
        assert 1 <= partitions <= PARTITIONS_MAX, f"{partitions} partitions"
        self._partitions = partitions
        self._chains: dict[int, list[Batch]] = {number: [] for number in (*range(partitions), CONTROL)}

    @property
    def partitions(self) -> int:
        return self._partitions

    async def head(self, partition: int) -> Head:
        return _head(self._chains[partition])

    async def append(self, batches: Sequence[Batch]) -> None:
        if not batches:
            return
        chain = self._chains[run_partition(batches)]
        fresh = check_join(_head(chain), batches, lambda seq: chain[seq - 1].tip)
        if fresh is None:
            raise AppendRefused(batches[0].partition, batches[0].seq, _head(chain))
        chain.extend(fresh)

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        assert first_seq > 0, "the first batch is 1"
        return self._chains[partition][first_seq - 1 : first_seq - 1 + limit]

    async def close(self) -> None:
        self._chains.clear()


def _head(chain: Sequence[Batch]) -> Head:
    return Head(chain[-1].seq, chain[-1].tip) if chain else EMPTY_HEAD
