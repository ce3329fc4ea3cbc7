"""Reversals of scans whose code came to name a voucher only later."""

from pathlib import Path

from core_world import new_id, wall_ms, world

from gateway.codes import typed_code
from gateway.messages import Reverse, Verdict


async def test_a_reversal_that_took_effect_is_not_forgotten_for_an_earlier_refusal(
    tmp_path: Path, valkey_endpoint: str
) -> None:
    """The code was unknown when it was scanned first; the record of that refusal must not hide the tombstone."""
    async with world(tmp_path, valkey_endpoint) as w:
        code = typed_code(4_711)
        scan = w.scan(code)
        assert await w.verdict(1, scan) is Verdict.UNKNOWN_CODE
        reversal = Reverse(new_id(), scan.redemption_id, wall_ms(), scan)
        assert await w.reverse(1, reversal) is Verdict.NOT_FOUND
        await w.core.desk.import_codes("test", "cake", [code], "r1")
        assert await w.reverse(1, reversal) is Verdict.TOMBSTONED
        assert await w.reverse(1, reversal) is Verdict.REPEATED
        assert await w.verdict(1, scan) is Verdict.REVERSED
        assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED
