"""The till's own rules for offline acceptance: caps whatever happens, codes as the gateway reads them, clocks."""

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.offline import Contact, Now, Refusal, Why, code_of, judge, time_of
from devices.offline_words import SAY
from devices.records import OfflineAccepted
from gateway.codes import CodeKeys, KeyRing, normalise
from gateway.messages import Grant, OfflineOffer
from gateway.offline_codes import OfflineKeys

KEYS = CodeKeys(keys={1: b"k" * 32}, active=1, pepper=b"p" * 32)
RING, SIGNER = KeyRing(KEYS), OfflineKeys(KEYS)
NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
OPENS = [(NOW_MS - HOUR_MS, NOW_MS + 9 * HOUR_MS * 1000)]
OFFER = OfflineOffer(7, "Noodle soup, 18.00 CNY", 1800, "CNY", OPENS, [(1, 100)], 3, 9000, 60)
GRANT = Grant(NOW_MS, NOW_MS + 9000 * HOUR_MS, SIGNER.public_keys, [OFFER])


def code(serial: int) -> str:
    return SIGNER.signed(next(RING.mint(1, 7, serial, 1)))


@given(
    caps=st.tuples(st.integers(1, 5), st.integers(1, 12_000), st.integers(1, 90)),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("scan"), st.integers(1, 8)),
            st.tuples(st.just("settle"), st.integers(0, 3)),
            st.tuples(st.just("wait"), st.integers(1, 40)),
            st.tuples(st.just("contact"), st.just(0)),
        ),
        max_size=40,
    ),
)
def test_whatever_happens_no_more_than_the_caps_is_at_risk(
    caps: tuple[int, int, int], steps: list[tuple[str, int]]
) -> None:
    offer = msgspec.structs.replace(OFFER, count_max=caps[0], value_minor_max=caps[1], minutes_max=caps[2])
    grant, now_ms, heard_ms = msgspec.structs.replace(GRANT, offers=[offer]), NOW_MS, NOW_MS
    untold: list[OfflineAccepted] = []
    for what, number in steps:
        contact = Contact(NOW_MS, NOW_MS, 0, "b", heard_ms)
        if what == "scan":
            came = judge(code_of(code(number)), grant, contact, now_ms, given=None, untold=untold)
            if not isinstance(came, Refusal):
                untold.append(OfflineAccepted(bytes(16), now_ms, heard_ms, 7, 1800))
            else:
                full = len(untold) + 1 > caps[0] or 1800 * (len(untold) + 1) > caps[1]
                late = now_ms - heard_ms > caps[2] * 60_000
                assert full or late, "nothing is refused without a cap"
        elif what == "settle":
            del untold[:number]
        elif what == "wait":
            now_ms += number * 60_000
        else:
            heard_ms = now_ms
        assert len(untold) <= caps[0]
        assert sum(fact.value_minor for fact in untold) <= caps[1]
        assert all(fact.accepted_ms - fact.contact_ms <= caps[2] * 60_000 for fact in untold)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(serial=st.integers(0, 2**40 - 1), around=st.sampled_from(("{}", "]Q3{}", " {}\r", "\uff34{}", "{}\x00")))
def test_till_and_gateway_read_the_same_code(serial: int, around: str) -> None:
    text = code(serial)
    shown = around.format(text[1:] if "\uff34" in around else text)
    spelled = code_of(shown.strip("\x00"))
    assert spelled is not None
    assert (spelled.campaign, spelled.serial, spelled.key_id) == (7, serial, 1)
    assert RING.parse(normalise(shown)) == RING.parse(text)


def test_the_clock_of_one_boot_is_believed_whatever_somebody_sets() -> None:
    contact = Contact(NOW_MS, NOW_MS, 1000, "b", NOW_MS)
    assert time_of(contact, Now(0, 61_000, "b"), NOW_MS) == NOW_MS + 60_000
    assert time_of(contact, Now(NOW_MS + 5000, 10, "c"), NOW_MS + 4000) == NOW_MS + 5000
    assert time_of(contact, Now(NOW_MS + 5000, 10, "c"), NOW_MS + 6000) is None
    wrong = msgspec.structs.replace(contact, wall_ms=NOW_MS - HOUR_MS)
    assert time_of(wrong, Now(NOW_MS, 10, "c"), 0) is None


def test_every_reason_has_its_words() -> None:
    assert {str(why) for why in Why} <= SAY.keys()
