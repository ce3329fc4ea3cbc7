"""Which redemption ids were used lately, and for what: the fast half of refusing a reused id.

Ids minted by terminals are UUIDv7 (RFC 9562 section 5.7): the first six bytes are the minting time. All ids above
`floor` that were ever used here are in memory, so an unknown id above it is new. Ids at or below it, and ids
that are not UUIDv7, are looked up in the redemption index instead (slower, never wrong). Two generations rotate; an id
dated in the future outlives its generation until its time has come. A generation must hold more ids than records are
under way: one that left memory before its record was in the index is taken for new.
"""

GENERATION_IDS = 131_072  # about 25 MB a generation, two seconds at the highest measured rate, hours at a festival's
_TAIL = b"\xff" * 10


class RecentIds:
    """redemption_id -> claim_id of everything used lately."""

    def __init__(self, floor_ms: int = 2**48 - 1) -> None:
        """`floor_ms`: ids minted at or before this may be in use without being in memory; by default, all of them."""
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._floor = floor_ms.to_bytes(6, "big") + _TAIL
        self._young_newest = self._old_newest = b""  # the latest minted UUIDv7 of each generation
        self._dropped_newest = b""  # and of all that left memory
        self.rotations = 0  # what was used since the one before last is in memory

    def get(self, redemption_id: bytes) -> bytes | None:
        """The claim id it was used with, None if not in memory."""
        claim_id = self._young.get(redemption_id)
        return claim_id if claim_id is not None else self._old.get(redemption_id)

    def trust_from(self, floor_ms: int) -> None:
        """Everything minted after this that was ever used has been put into memory by now; some may have left again."""
        self._floor = max(floor_ms.to_bytes(6, "big") + _TAIL, self._dropped_newest)

    def is_strange(self, redemption_id: bytes) -> bool:
        """Whether memory cannot tell if this id was used before."""
        if self.get(redemption_id) is not None:
            return False
        return redemption_id <= self._floor or redemption_id[6] & 0xF0 != 0x70

    def use(self, redemption_id: bytes, claim_id: bytes, now_ms: int) -> bytes | None:
        """What the id stands for, which is `claim_id` if it is new; None if memory cannot tell whether it is."""
        first = self._young.get(redemption_id) or self._old.get(redemption_id)
        if first is not None:
            return first
        if redemption_id <= self._floor or redemption_id[6] & 0xF0 != 0x70:
            return None
        self._young[redemption_id] = claim_id
        if redemption_id > self._young_newest:
            self._young_newest = redemption_id
        if len(self._young) >= GENERATION_IDS:
            self._rotate(now_ms)
        return claim_id

    def put(self, redemption_id: bytes, claim_id: bytes, now_ms: int) -> None:
        """Remember a use that was looked up elsewhere."""
        self._young[redemption_id] = claim_id
        if redemption_id[6] & 0xF0 == 0x70 and redemption_id > self._young_newest:
            self._young_newest = redemption_id
        if len(self._young) >= GENERATION_IDS:
            self._rotate(now_ms)

    def _rotate(self, now_ms: int) -> None:
        # Other ids than UUIDv7 have no part in the floor: they are looked up in any case.
        ceiling = now_ms.to_bytes(6, "big") + _TAIL
        kept: dict[bytes, bytes] = {}
        if self._old_newest > ceiling:
            kept = self._dated_ahead(ceiling)
        self._dropped_newest = max(self._dropped_newest, self._old_newest)
        self._floor = max(self._floor, self._dropped_newest)
        self._old, self._old_newest = self._young, self._young_newest
        self.rotations += 1
        self._young, self._young_newest = kept, max(kept, default=b"")

    def _dated_ahead(self, ceiling: bytes) -> dict[bytes, bytes]:
        """The old generation's ids from the future, to be kept, with `_old_newest` lowered to the newest dropped.

        A floor in the future would send every honest id to the index. Only if somebody sends little else does the
        floor rise over them, and honest ids take the slow way for a while.
        """
        timed = {key: value for key, value in self._old.items() if key[6] & 0xF0 == 0x70}
        ahead = {key: value for key, value in timed.items() if key > ceiling}
        if len(ahead) > GENERATION_IDS // 4:
            return {}
        self._old_newest = max(timed.keys() - ahead.keys(), default=b"")
        return ahead
