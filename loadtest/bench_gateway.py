"""A real gateway for the bench: its own data directory, Valkey and log, filled through its HTTP API like any other."""

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from loadtest.bench_plan import Till
from loadtest.own_server import NO_VARIABLES, GatewayFailed, Served, Server

ANSWER_SECONDS_MAX = 60.0
CODES_PER_CALL = 250_000  # ten megabytes of text
MERCHANT, ALLIANCE, CAMPAIGN, STORES = "bench-cafe", "bench-street", "bench", 4
PARTITIONS = 1  # NP: one Valkey, so one shard


class Desk:
    """An admin's connection to a running gateway."""

    def __init__(self, url: str, token: str) -> None:
        address = urlsplit(url)
        if address.hostname is None or address.port is None or address.scheme != "http":
            raise GatewayFailed(f"{url}: must be like http://host:port")
        self.url, self.host, self.port = url, address.hostname, address.port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_SECONDS_MAX)

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """One request; a body of bytes is text as it stands. Raises GatewayFailed unless it is answered with 200."""
        content: Any = body
        headers = self._headers
        if isinstance(body, bytes):
            headers = headers | {"Content-Type": "text/plain"}
        elif body is not None:
            content = msgspec.json.encode(body)
        self._connection.request(method, path, content, headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != http.client.OK:
            raise GatewayFailed(f"{method} {path.partition('?')[0]}: {response.status} {answer[:300].decode()}")
        return answer

    def post(self, path: str, body: object) -> Any:
        """POST, and the answer as a value."""
        return msgspec.json.decode(self.ask("POST", path, body))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class Gateway(Desk):
    """A running gateway of our own, and its processes."""

    def __init__(self, server: Server, served: Served) -> None:
        self.directory = server.directory
        super().__init__(served.url, (self.directory / "secrets" / "admin.token").read_text().strip())
        self.server, self.pid, self.metrics_url = server, served.pid, served.metrics_url

    @property
    def valkey_pid(self) -> int:
        """Of the private Valkey that runs now."""
        return int((self.directory / "valkey" / "valkey.pid").read_text())


@contextmanager
def running_gateway(
    directory: Path, environment: Mapping[str, str] = NO_VARIABLES, **settings: str
) -> Iterator[Gateway]:
    """Initialise `directory`, serve it with `tillgate serve`, stop it in the end. Raises GatewayFailed.

    `settings` are variables without their TILLGATE_; `environment`: further ones.
    """
    server = Server(directory, settings, environment)
    server.init("--partitions", str(PARTITIONS))
    try:
        gateway = Gateway(server, server.start())
        yield gateway
        gateway.close()
    finally:
        server.leave()


class Stage(msgspec.Struct, frozen=True):
    """What a row needs of a gateway."""

    tills: list[Till]
    token: str  # an integrator's, for HTTP
    codes: list[str]


def set_up(gateway: Gateway, tills: int, vouchers: int) -> Stage:
    """One merchant, a few stores, enrolled tills, a campaign and its vouchers in the order of their serials."""
    gateway.post("/v1/merchants", {"merchant": MERCHANT, "title": "Bench Café"})
    gateway.post("/v1/alliances", {"alliance": ALLIANCE, "merchants": [MERCHANT]})
    for number in range(STORES):
        body = {"store": f"bench-{number}", "merchant": MERCHANT, "title": f"Bench {number}"}
        gateway.post("/v1/stores", body)
    now = datetime.now(UTC)
    offer = {
        "title": "Coffee",
        "kind": "prepaid",
        "value": "3.50 EUR",
        "starts": (now - timedelta(days=1)).date().isoformat(),
        "ends": (now + timedelta(days=1)).date().isoformat(),
        "alliance": ALLIANCE,
    }
    gateway.post("/v1/campaigns", {"slug": CAMPAIGN, "offer": offer})
    asked = {"role": "integrator", "scope": MERCHANT, "label": "bench"}
    token = gateway.post("/v1/tokens", asked)["token"]
    return Stage([_enrolled(gateway, number) for number in range(tills)], token, _codes(gateway, vouchers))


def _enrolled(gateway: Gateway, number: int) -> Till:
    key = Ed25519PrivateKey.generate()
    offered = gateway.post("/v1/terminals", {"store": f"bench-{number % STORES}", "label": f"till {number}"})
    body = {"token": offered["token"], "public_key": key.public_key().public_bytes_raw().hex()}
    gateway.post("/v1/terminals/enrol", body)
    return Till(offered["terminal"], key.private_bytes_raw())


def _codes(gateway: Gateway, vouchers: int) -> list[str]:
    issued = gateway.post(f"/v1/campaigns/{CAMPAIGN}/issues", {"count": vouchers, "request_id": "bench"})
    first, end, codes = issued["first_serial"], issued["first_serial"] + vouchers, []
    for start in range(first, end, CODES_PER_CALL):
        count = min(CODES_PER_CALL, end - start)
        text = gateway.ask("GET", f"/v1/campaigns/{CAMPAIGN}/codes?first={start}&count={count}").decode()
        codes += [line.partition(",")[2] for line in text.splitlines()]
    if len(codes) != vouchers:
        raise GatewayFailed(f"{len(codes)} codes came of {vouchers} issued vouchers")
    return codes
