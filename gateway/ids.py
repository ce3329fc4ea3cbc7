"""Which redemption ids were used lately, and for what: the fast half of refusing a reused id.

Ids minted by terminals are UUIDv7 (RFC 9562 section 5.7): the first six bytes are the minting time. All ids above
`floor` that were ever used here are in memory, so an unknown id above it is new. Ids at or below it, and ids
that are not UUIDv7, are looked up in the redemption index instead (slower, never wrong). Two generations rotate; an id
dated in the future outlives its generation until its time has come.
"""

GENERATION_IDS = 131_072  # about 25 MB a generation, two seconds at the highest measured rate, hours at a festival's
_TAIL = b"\xff" * 10


class RecentIds:
    """redemption_id -> claim_id of everything used lately."""

    def __init__(self, floor_ms: int) -> None:
        """`floor_ms`: ids minted at or before this may have been used before this process started."""
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._floor = floor_ms.to_bytes(6, "big") + _TAIL

    def get(self, redemption_id: bytes) -> bytes | None:
        """The claim id it was used with, None if not in memory."""
        claim_id = self._young.get(redemption_id)
        return claim_id if claim_id is not None else self._old.get(redemption_id)

    def use(self, redemption_id: bytes, claim_id: bytes, now_ms: int) -> bytes | None:
        """What the id stands for, which is `claim_id` if it is new; None if memory cannot tell whether it is."""
        first = self._young.get(redemption_id) or self._old.get(redemption_id)
        if first is not None:
            return first
        if redemption_id <= self._floor or redemption_id[6] >> 4 != 7:
            return None
        self.put(redemption_id, claim_id, now_ms)
        return claim_id

    def put(self, redemption_id: bytes, claim_id: bytes, now_ms: int) -> None:
        """Remember a use."""
        self._young[redemption_id] = claim_id
        if len(self._young) >= GENERATION_IDS:
            self._rotate(now_ms)

    def _rotate(self, now_ms: int) -> None:
        # A floor in the future would send every honest id to the index, so ids dated ahead are kept instead, unless
        # somebody sends nothing else: then the floor rises over them and honest ids take the slow way for a while.
        # Other ids than UUIDv7 have no part in the floor: they are looked up in any case.
        ceiling = now_ms.to_bytes(6, "big") + _TAIL
        timed = {key: value for key, value in self._old.items() if key[6] >> 4 == 7}
        ahead = {key: value for key, value in timed.items() if key > ceiling}
        if len(ahead) > GENERATION_IDS // 4:
            ahead = {}
        dropped = timed.keys() - ahead.keys()
        if dropped:
            newest = max(dropped)
            self._floor = max(self._floor, newest)
        self._old, self._young = self._young, ahead
