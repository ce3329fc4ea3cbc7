"""What `terminal test` and a repr show of a code: nothing."""

import pytest

from devices.framing import Frame
from devices.framing.honeywell import HoneywellFramer
from devices.framing.raw import RawFramer
from devices.page import SeenHere, TypedHere
from devices.probe import HIDDEN, hidden
from gateway.messages import Redeem, RedeemMany, Reverse

CODE, CUT_OFF = b"SECRET-VOUCHER-1", b"OTHER-SECRET-VOUCHER-2"
PACKET = b"\x16\xfe0017\rMSGGET0017sQ1\x1d" + CODE + b"\r"


@pytest.mark.parametrize(
    ("framer", "octets"),
    ((RawFramer(b"\r", b"\x02"), CUT_OFF + b"\x02" + CODE + b"\r"), (HoneywellFramer(), CUT_OFF + PACKET)),
)
def test_a_code_that_was_cut_off_before_a_whole_one_is_left_out_too(
    framer: RawFramer | HoneywellFramer, octets: bytes
) -> None:
    found = [one for one in framer.feed(octets, 0) if isinstance(one, Frame)]
    assert len(found) == 1
    assert hidden(octets, found).split()[: len(CUT_OFF)] == [HIDDEN] * len(CUT_OFF)


def test_the_head_of_a_packet_is_shown() -> None:
    assert hidden(PACKET, [Frame(CODE)]).startswith(PACKET.partition(CODE)[0].hex(" "))


def test_no_message_shows_its_code() -> None:
    redeem = Redeem(bytes(16), "SECRET", 1)
    for one in (
        redeem,
        RedeemMany(1, [redeem]),
        Reverse(bytes(16), bytes(16), 1, redeem),
        TypedHere("SECRET"),
        SeenHere("S"),
    ):
        assert "SECRET" not in repr(one)
