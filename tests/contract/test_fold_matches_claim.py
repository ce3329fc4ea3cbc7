"""Two implementations of one rule: what the claim function leaves in Valkey is what the fold computes from the log."""

import random
from importlib.resources import files

import pytest
import redis
from log_batches import AT_MS, head_of, id16, record

from eventstore.events import IMPORT, REDEEM, REVERSE, VOID, encode_records
from eventstore.log import EMPTY_HEAD, Batch
from eventstore.vouchers import apply_batch, empty_state, head_key, head_value, registry_key, voucher_key

PARTITION = 3
Row = tuple[bytes, bytes]  # hash key, packed record


def drawn(draw: random.Random) -> Row:
    """A record from a world so small that every collision happens: 6 vouchers, 16 ids, 6 codes."""
    op = draw.choices((REDEEM, REVERSE, VOID, IMPORT), (10, 8, 1, 2))[0]
    campaign, serial, claim_id = draw.randint(1, 2), draw.choice((1, 2, 66)), id16("claim", draw.randint(1, 16))
    code = id16("code", draw.randint(1, 6))
    packed = record(
        op,
        campaign=campaign,
        serial=serial,
        redemption_id=code,
        claim_id=claim_id,
        terminal=draw.randint(1, 3),
        static=draw.choice((0, 0, 0, 34, 4 if op == REDEEM else 0)),
    )
    return (registry_key(PARTITION, code) if op == IMPORT else voucher_key(PARTITION, campaign, serial)), packed


def claim(client: redis.Redis, rows: list[Row], seq: int) -> Batch:
    """Claims the rows as one batch; the batch as the log would hold it."""
    keys = sorted({key for key, _ in rows})
    key_map = b"".join((keys.index(key) + 4).to_bytes(2, "little") for key, _ in rows)  # KEYS 1 to 3 are `named`
    payload = encode_records([packed for _, packed in rows], {}, received_ms=AT_MS + seq)
    tip, at = id16("tip", seq), (AT_MS + seq).to_bytes(6, "big")
    named = [b"{%d}%s" % (PARTITION, name) for name in (b"head", b"log", b"load")]
    answer = client.fcall("tillgate_claim_1", 3 + len(keys), *named, *keys, payload, key_map, tip, at, seq - 1)
    got, prev, verdicts, _ = answer
    assert got == seq
    return Batch(PARTITION, seq, prev, tip, payload, verdicts)


@pytest.mark.parametrize("seed", range(4))
def test_fold_and_claim_agree(valkey_endpoint: str, seed: int) -> None:
    draw = random.Random(seed)
    state = empty_state(PARTITION + 1)
    head = EMPTY_HEAD
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.function_load(files("gateway").joinpath("claim.lua").read_text())
        for seq in range(1, 150):
            batch = claim(client, [drawn(draw) for _ in range(draw.randint(0, 9))], seq)
            apply_batch(state, batch)
            head = head_of(batch)
        held = {key: client.hgetall(key) for key in client.keys("*") if client.type(key) == b"hash"}
        assert held == state.hashes
        assert client.get(head_key(PARTITION)) == head_value(head)
    assert max(len(value) for fields in held.values() for value in fields.values()) >= 10 * 32
