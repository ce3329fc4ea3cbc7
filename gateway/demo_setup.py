"""Before the doors open: a gateway, stores, campaigns and their vouchers, tills, and a picture of each code."""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec

from gateway import qr
from gateway.cli_session import ADMIN_TOKEN, GATEWAY_FILE, Served
from gateway.client import Client
from gateway.codes import typed_code
from gateway.demo_children import Children, DemoFailed, until
from gateway.demo_plan import (
    ALLIANCE,
    BOWL,
    BREAD,
    ENDED,
    ENDED_COUNT,
    GIFT,
    GIFT_STORES,
    MERCHANTS,
    PHONES,
    PRINTED,
    PRINTED_COUNT,
    STORES,
    Voucher,
)
from gateway.demo_till import Till

LOOPBACK = "127.0.0.1"
PORT_TRIES_MAX = 100
STARTS_AT_ONCE = 4  # Python takes half a second of a core to start a process; more only push each other aside
ROUND_DAYS = 30
PICTURE_PX = 330  # ten pixels a module of a signed code: a phone at arm's length, as a scanner's camera sees it
Codes = dict[Voucher, str]
Row = dict[str, Any]


class Gateway:
    """The gateway's process on a data directory, at the same port after every start."""

    def __init__(self, directory: Path, children: Children) -> None:
        self.directory, self.port = directory, _port_of_ours()
        self._children = children

    async def start(self) -> None:
        """Returns when it says that it is ready. Raises DemoFailed."""
        arguments = ["-m", "gateway.cli", "serve", "--data", str(self.directory)]
        arguments += ["--server-port", str(self.port), "--metrics-port", "0", "--drain-seconds", "0"]
        process = await self._children.start("gateway", arguments)
        await until(lambda: self._served_by() == process.pid, "the gateway to be ready")

    async def kill(self) -> None:
        await self._children.kill("gateway")

    def client(self) -> Client:
        """A client with the administrator's token."""
        return Client(f"http://{LOOPBACK}:{self.port}", (self.directory / ADMIN_TOKEN).read_text().strip())

    def _served_by(self) -> int | None:
        try:
            return msgspec.json.decode((self.directory / GATEWAY_FILE).read_bytes(), type=Served).pid
        except (FileNotFoundError, msgspec.DecodeError):
            return None


def _port_of_ours() -> int:
    """A free port below those the kernel hands out: while the gateway is down, nobody is given it by chance.

    Not even a till, which would then be connected to itself (a TCP simultaneous open, RFC 9293 section 3.5).
    """
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(PORT_TRIES_MAX):
        port = first_ephemeral // 2 + secrets.randbelow(first_ephemeral // 2)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise DemoFailed(f"found no free port below {first_ephemeral}")


async def open_market(client: Client) -> None:
    """Merchants, their alliance, and ten stores."""
    for merchant, title, stores in MERCHANTS:
        await client.post("/v1/merchants", {"merchant": merchant, "title": title}, Row)
        for store in stores:
            await client.post("/v1/stores", {"store": store, "merchant": merchant, "title": store}, Row)
    members = [merchant for merchant, _, _ in MERCHANTS]
    await client.post("/v1/alliances", {"alliance": ALLIANCE, "merchants": members}, Row)


async def issue_vouchers(client: Client, today: date) -> Codes:
    """The campaigns, and every voucher's code."""
    for slug, offer in _offers(today).items():
        await client.post("/v1/campaigns", {"slug": slug, "offer": offer}, Row)
    codes: Codes = {}
    for slug, count in ((BOWL, PHONES), (BREAD, PHONES), (GIFT, PHONES), (ENDED, ENDED_COUNT)):
        issued = await client.post(
            f"/v1/campaigns/{slug}/issues", {"count": count, "request_id": "demo"}, dict[str, int], again=True
        )
        first = issued["first_serial"]
        async for line in client.lines(f"/v1/campaigns/{slug}/codes", first=first, count=count):
            serial, _, code = line.partition(",")
            codes[Voucher(slug, int(serial) - first)] = code
    printed = [typed_code(secrets.randbelow(10**15)) for _ in range(PRINTED_COUNT)]
    await client.post(f"/v1/campaigns/{PRINTED}/imports", {"request_id": "demo", "codes": printed}, Row, again=True)
    return codes | {Voucher(PRINTED, number): code for number, code in enumerate(printed)}


def _offers(today: date) -> dict[str, Row]:
    def offer(title: str, kind: str, value: str, first: int, last: int, **where: object) -> Row:
        days = {"starts": str(today + timedelta(first)), "ends": str(today + timedelta(last))}
        return {"title": title, "kind": kind, "value": value, **days, **where}

    everywhere: Row = {"alliance": ALLIANCE}
    now = -ROUND_DAYS, ROUND_DAYS
    return {
        BOWL: offer("A bowl of autumn noodles", "prepaid", "18.00 CNY", *now, **everywhere),
        BREAD: offer("Five yuan off two loaves", "discount", "5.00 CNY", *now, **everywhere),
        GIFT: offer("A box of tea", "gift", "0.00 CNY", *now, stores=list(GIFT_STORES)),
        ENDED: offer("Summer ice", "discount", "2.00 CNY", -3 * ROUND_DAYS, -2, **everywhere),
        PRINTED: offer("Thanks from the radio", "prepaid", "10.00 CNY", *now, **everywhere),
    }


async def void(client: Client, vouchers: Sequence[Voucher], codes: Codes) -> None:
    """The campaign's owner ends these."""
    for voucher in vouchers:
        name = f"void {voucher.campaign} {voucher.number}"
        body = {"code": codes[voucher], "reason": "the demo's misprint", "request_id": name}
        await client.post("/v1/vouchers/void", body, Row, again=True)


async def open_tills(client: Client, directory: Path, children: Children, urls: Mapping[int, str]) -> list[Till]:
    """One till a store, enrolled with a token and a key of its own, and started. `urls`: its gateway, by till."""
    tills = [Till(index, store, directory / f"till-{index}", children) for index, store in enumerate(STORES)]
    turn = asyncio.Semaphore(STARTS_AT_ONCE)

    async def open_till(till: Till) -> None:
        offered = await client.post("/v1/terminals", {"store": till.store, "label": till.name}, Row)
        async with turn:
            await _enrol(till, children, urls[till.index], offered["token"])
            till.configure()
            await till.start()

    async with asyncio.TaskGroup() as group:
        for till in tills:
            group.create_task(open_till(till))
    return tills


async def _enrol(till: Till, children: Children, url: str, token: str) -> None:
    arguments = ["-m", "gateway.cli", "terminal", "enrol", "--url", url, "--token", token]
    arguments += ["--config", str(till.directory / "terminal.toml"), "--state", str(till.directory)]
    await children.run(f"enrol-{till.index}", arguments)


async def through_pictures(codes: Mapping[Voucher, str], advance: Callable[[int], None]) -> Codes:
    """What a camera reads from the picture of each code, as a phone would show it. Raises DemoFailed."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(os.cpu_count(), "pictures") as threads:
        readings = {v: loop.run_in_executor(threads, _seen, code) for v, code in codes.items()}
        seen: Codes = {}
        try:
            for voucher, reading in readings.items():
                seen[voucher] = await reading
                advance(1)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    return seen


def _seen(code: str) -> str:
    texts = qr.decode(qr.render(code, px=PICTURE_PX, fmt="png"))
    if len(texts) != 1:
        raise DemoFailed(f"{len(texts)} codes were read from the picture of one")
    return texts[0]
