"""Which voucher a code names: signed codes say it, typed and foreign ones are looked up in Valkey's registry."""

from collections.abc import Sequence

import msgspec

from eventstore.vouchers import REGISTRY_VALUE, registry_key, registry_partition
from gateway.campaign import SIGNED
from gateway.codes import Hashed, Refused, Signed
from gateway.identity import Spot
from gateway.lookup import ValkeyReader


class Nowhere(msgspec.Struct, frozen=True):
    """No voucher has this code, says the registry of `partition`, and the log."""

    partition: int


class Registry:
    """Looks codes up."""

    def __init__(self, reader: ValkeyReader, partitions: int) -> None:
        self._reader, self._partitions = reader, partitions

    async def find(self, codes: Sequence[Signed | Hashed | Refused]) -> list[Spot | Nowhere | None]:
        """Which vouchers these codes name; None where nobody can tell. Raises as ValkeyReader does."""
        found: list[Spot | Nowhere | None] = [None] * len(codes)
        wanted: dict[int, list[tuple[int, Hashed]]] = {}
        for index, code in enumerate(codes):
            if isinstance(code, Signed):
                found[index] = Spot(code.campaign, code.serial, SIGNED)
            elif isinstance(code, Hashed):
                home = registry_partition(code.keyed_hash, self._partitions)
                wanted.setdefault(home, []).append((index, code))
        for partition, hashed in wanted.items():
            keys = [(registry_key(partition, code.keyed_hash), code.keyed_hash) for _, code in hashed]
            values, is_fact = await self._reader.find(partition, keys)
            nowhere = Nowhere(partition) if is_fact else None
            for (index, code), value in zip(hashed, values, strict=True):
                found[index] = nowhere if value is None else _registered(value, code)
        return found


def _registered(value: bytes, code: Hashed) -> Spot:
    campaign, serial = REGISTRY_VALUE.unpack(value)
    return Spot(campaign, serial, code.entry)
