"""Who may see the cashier's page: our hosts, our page, paired devices."""

import pytest

from devices.page_access import PAIR_MS, PAIR_TRIES_MAX, PAIRED_S, Pairing, is_our_host, is_our_page

NOW_MS = 1_790_000_000_000


@pytest.mark.parametrize(
    ("host", "ours"),
    (
        ("localhost", True),
        ("localhost:8470", True),
        ("127.0.0.1:8470", True),
        ("[::1]:8470", True),
        ("192.168.1.20:8443", True),
        ("till7.shop:8443", True),
        ("TILL7.shop", True),
        ("evil.example", False),
        ("evil.example:8470", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8470", False),
        ("user@evil.example", False),
        ("", False),
        ("[", False),
        ("[::1", False),
        (":8470", False),
    ),
)
def test_a_name_that_anybody_can_point_here_is_not_ours(host: str, ours: bool) -> None:
    assert is_our_host(host, ["till7.shop"]) == ours


@pytest.mark.parametrize(
    ("origin", "ours"),
    (
        ("http://127.0.0.1:8470", True),
        ("HTTP://127.0.0.1:8470", True),
        ("https://127.0.0.1:8470", False),
        ("http://127.0.0.1:8471", False),
        ("http://127.0.0.1", False),
        ("http://localhost:8470", False),
        ("null", False),
        ("", False),
    ),
)
def test_what_acts_comes_from_the_page_itself(origin: str, ours: bool) -> None:
    assert is_our_page(origin, "http", "127.0.0.1:8470") == ours


def test_an_offer_pairs_one_device_once() -> None:
    pairing = Pairing(bytes(32))
    code = pairing.offer(NOW_MS, bytes(range(8)))
    assert len(code) == 8
    assert pairing.take(f"{code[:4]} {code[4:]}", NOW_MS)
    assert pairing.take(code, NOW_MS) is None


def test_an_offer_ends_with_its_time_and_with_guesses() -> None:
    pairing = Pairing(bytes(32))
    code = pairing.offer(NOW_MS, b"12345678")
    assert pairing.take(code, NOW_MS + PAIR_MS) is None
    code = pairing.offer(NOW_MS, b"12345678")
    assert [pairing.take("00000000", NOW_MS) for _ in range(PAIR_TRIES_MAX)] == [None] * PAIR_TRIES_MAX
    assert pairing.take(code, NOW_MS) is None
    assert pairing.take("", NOW_MS) is None
    assert Pairing(bytes(32)).take("", NOW_MS) is None, "nothing was offered"


def test_a_cookie_is_known_for_half_a_year_and_to_its_till_only() -> None:
    pairing = Pairing(bytes(32))
    cookie = pairing.take(pairing.offer(NOW_MS, b"12345678"), NOW_MS)
    assert cookie
    assert pairing.knows(cookie, NOW_MS)
    assert Pairing(bytes(32)).knows(cookie, NOW_MS), "also after a restart"
    assert not pairing.knows(cookie, NOW_MS + PAIRED_S * 1000)
    assert not Pairing(bytes(31) + b"\1").knows(cookie, NOW_MS)


@pytest.mark.parametrize("cookie", ("", ".", "1790000000", "1790000000.", "x.y", "²." + "0" * 64, "9" * 400 + ".0"))
def test_a_cookie_from_elsewhere_is_not_known(cookie: str) -> None:
    assert not Pairing(bytes(32)).knows(cookie, NOW_MS)


def test_a_cookie_of_bytes_that_are_no_text_is_not_known() -> None:
    assert not Pairing(bytes(32)).knows(f"{NOW_MS // 1000}.\udcff", NOW_MS)  # as headers are decoded


def test_a_cookie_holds_for_its_own_date_only() -> None:
    pairing = Pairing(bytes(32))
    cookie = pairing.take(pairing.offer(NOW_MS, b"12345678"), NOW_MS)
    assert cookie
    paired, _, mac = cookie.partition(".")
    assert not pairing.knows(f"{int(paired) + 1}.{mac}", NOW_MS)
