"""Which request heads are plain: nobody can read them two ways."""

import pytest

from gateway.http_gate import BODY_BYTES_MAX
from gateway.http_hot import Head, read_head

USUAL = "Host: x\r\nAuthorization: Bearer tg_A\r\nContent-Type: application/json\r\n"


def head(fields: str, line: str = "POST /v1/redemptions HTTP/1.1") -> Head | None:
    return read_head(f"{line}\r\n{fields}\r\n".encode("latin-1"))


@pytest.mark.parametrize(
    "fields",
    (
        USUAL + "Content-Length: 7\r\n",
        USUAL.lower() + "content-length:7\r\n",
        "CONTENT-LENGTH: \t 7 \t\r\nconnection: Keep-Alive\r\nX-Request-ID: \xe9\r\n" + USUAL,
    ),
)
def test_a_hot_head(fields: str) -> None:
    plain = head(fields)
    assert plain is not None
    assert plain.length == 7
    assert (plain.authorization or "").lower() == "bearer tg_a"


@pytest.mark.parametrize(
    ("line", "fields", "length"),
    (
        ("GET /v1/redemptions HTTP/1.1", USUAL, 0),
        ("POST /v1/redemptions/preview HTTP/1.1", USUAL + "Content-Length: 9\r\n", 9),
        ("POST /v1/redemptions?x=1 HTTP/1.1", USUAL, 0),
        ("POST /v1/redemptions HTTP/1.1", "Host: x\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n", 3),
        ("POST /v1/redemptions HTTP/1.1", "Host: x\r\nContent-Length: 0003\r\n", 3),
    ),
)
def test_a_plain_head_of_another_request(line: str, fields: str, length: int) -> None:
    assert head(fields, line) == Head(None, length)


@pytest.mark.parametrize(
    "fields",
    (
        "Content-Length: 7\r\nContent-Length: 7\r\n",
        "Content-Length: 7\r\ncontent-length: 8\r\n",
        "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: +7\r\n",
        "Content-Length: 7, 7\r\n",
        "Content-Length: -1\r\n",
        "Content-Length:\r\n",
        "Content-Length: 0x7\r\n",
        "Content-Length: \xb2\r\n",
        "Content-Length: 000000007\r\n",
        f"Content-Length: {BODY_BYTES_MAX + 1}\r\n",
        "Content-Length : 7\r\n",
        " Content-Length: 7\r\n",
        "X: a\r\n Content-Length: 7\r\n",
        "X: a\nContent-Length: 7\r\n",
        "X: a\rContent-Length: 7\r\n",
        "X\x00: a\r\n",
        "X: \x00\r\n",
        ": a\r\n",
        "X\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive, x\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Expect: 100-continue\r\n",
        "Content-Encoding: gzip\r\n",
        "Host: y\r\n",
        "Authorization: Bearer tg_B\r\n",
    ),
)
def test_not_plain(fields: str) -> None:
    assert head(USUAL + fields) is None


@pytest.mark.parametrize(
    "line",
    (
        "POST /v1/redemptions HTTP/1.0",
        "POST /v1/redemptions HTTP/2.0",
        "POST  /v1/redemptions HTTP/1.1",
        "POST /v1/redemptions  HTTP/1.1",
        "post /v1/redemptions HTTP/1.1",
        "POST http://x/v1/redemptions HTTP/1.1",
        "CONNECT x:443 HTTP/1.1",
        "CONNECT /x HTTP/1.1",
        "POST /v1/redemptions\t HTTP/1.1",
        " POST /v1/redemptions HTTP/1.1",
        "\r\nPOST /v1/redemptions HTTP/1.1",
        "POST /v1/redemptions HTTP/1.1 ",
    ),
)
def test_not_a_plain_request_line(line: str) -> None:
    assert head(USUAL, line) is None
