"""What the load generator sends and reads: ids, conversations with known answers, frames cut at any byte."""

from itertools import islice
from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import Redeem, RedeemMany, RedemptionRequest, Verdict
from loadtest.bench_frames import (
    BINARY,
    client_frame,
    conversation,
    http_messages,
    mint_id,
    stream_messages,
    take_frames,
    take_response,
)
from loadtest.bench_plan import HTTP, STREAM, Shape

NOW_MS = 1_763_000_000_000


def codes(count: int) -> list[str]:
    return [f"CODE{number}" for number in range(count)]


@given(st.integers(0, 2**48 - 1), st.integers())
def test_ids_are_uuid_version_7(at_ms: int, seed: int) -> None:
    minted = mint_id(at_ms, Random(seed))
    assert len(minted) == 16
    assert int.from_bytes(minted[:6], "big") == at_ms
    assert (minted[6] >> 4, minted[8] >> 6) == (7, 2)


def test_a_plain_conversation_names_every_code_once_and_in_order() -> None:
    sent = list(conversation(iter(codes(10)), Shape(STREAM, 1, scans=3), NOW_MS, Random(1)))
    assert [scan.code for scans, _ in sent for scan in scans] == codes(9)
    assert all(expected == bytes(3) for _, expected in sent)
    ids = [scan.redemption_id for scans, _ in sent for scan in scans]
    assert len(set(ids)) == 9
    times = [scan.scanned_ms for scans, _ in sent for scan in scans]
    assert times == sorted(times), "ids rise from message to message"


def arbiter(sent: list[list[Redeem]]) -> list[bytes]:
    """What one voucher, one redemption comes to."""
    winners: dict[str, Redeem] = {}
    told = []
    for scans in sent:
        first = [winners.setdefault(scan.code, scan) for scan in scans]
        told.append(
            bytes(
                Verdict.ACCEPTED if winner == scan else Verdict.ALREADY_REDEEMED
                for winner, scan in zip(first, scans, strict=True)
            )
        )
    return told


@given(st.integers(), st.sampled_from([1, 7, 64]))
def test_expected_verdicts_are_those_of_an_honest_arbiter(seed: int, scans: int) -> None:
    shape = Shape(STREAM, 1, scans=scans, repeats=0.3, used=0.05)
    sent = list(islice(conversation(iter(codes(500)), shape, NOW_MS, Random(seed)), 200))
    assert arbiter([each for each, _ in sent]) == [expected for _, expected in sent]


def test_repeats_and_used_vouchers_come_in_their_shares() -> None:
    shape = Shape(STREAM, 1, scans=50, repeats=0.3, used=0.05)
    messages = stream_messages(iter(codes(6500)), shape, NOW_MS, Random(3))
    scans = sum(len(message.expected) for message in messages)
    used = sum(message.expected.count(Verdict.ALREADY_REDEEMED) for message in messages)
    distinct = sum(message.distinct for message in messages)
    assert 0.04 < used / scans < 0.06
    assert 0.62 < distinct / scans < 0.68


def test_a_stream_message_is_one_masked_frame_of_the_contract() -> None:
    message = stream_messages(iter(codes(64)), Shape(STREAM, 1, scans=64), NOW_MS, Random(1))[0]
    assert message.raw[:2] == bytes((BINARY, 0x80 | 126))
    length = int.from_bytes(message.raw[2:4], "big")
    assert message.raw[4:8] == bytes(4), "a mask of zeros"
    decoded = msgspec.msgpack.decode(message.raw[8:], type=RedeemMany)
    assert (len(message.raw) - 8, decoded.ref, len(decoded.scans)) == (length, 0, 64)


def test_an_http_message_is_one_request_of_the_contract() -> None:
    made = http_messages(iter(codes(2)), Shape(HTTP, 1), NOW_MS, Random(1), token="tg_X", terminal=7)
    head, _, body = made[1].raw.partition(b"\r\n\r\n")
    request = msgspec.json.decode(body, type=RedemptionRequest)
    assert (request.code, request.terminal, len(made)) == ("CODE1", 7, 2)
    assert b"Authorization: Bearer tg_X\r\n" in head
    assert b"Content-Length: %d" % len(body) in head


def server_frame(payload: bytes) -> bytes:
    masked = client_frame(BINARY, payload)
    head = len(masked) - len(payload) - 4
    return bytes((masked[0], masked[1] & 0x7F)) + masked[2:head] + payload


@given(st.lists(st.integers(0, 300).map(bytes) | st.just(bytes(70_000)), max_size=4), st.data())
def test_frames_come_out_whole_however_they_arrive(payloads: list[bytes], draw: st.DataObject) -> None:
    stream = b"".join(map(server_frame, payloads))
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    rest, got = b"", []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        frames, rest = take_frames(rest + stream[start:end])
        got += frames
    assert (got, rest) == ([(BINARY, payload) for payload in payloads], b"")


@given(st.binary(max_size=40), st.integers(0, 200))
def test_a_response_is_taken_when_it_is_whole(body: bytes, cut: int) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-Length: %d\r\n\r\n" % len(body) + body
    assert take_response(whole + b"HTTP/1.1") == (200, body, b"HTTP/1.1")
    if cut < len(whole):
        assert take_response(whole[:cut]) is None
