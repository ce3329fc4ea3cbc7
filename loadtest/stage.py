"""The deployment under load: one of our own, or one that runs already; its stores, tills, campaigns and codes.

Everything is made over the HTTP API, under names that hold the run's tag, so that a gateway in use can be loaded more
than once. Codes never reach a file: they go from the gateway to the generators' standard input.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from loadtest.arrivals import sends_of
from loadtest.bench_gateway import CODES_PER_CALL, Desk, running_gateway
from loadtest.bench_plan import Till
from loadtest.faults import Ground, Target
from loadtest.own_server import GatewayFailed
from loadtest.run_files import DEPLOYMENT, SETTINGS_FILE
from loadtest.scenario import Origin, Scenario

ISSUE_MAX = 1_000_000  # a request
IMPORT_LINES = 50_000  # a request: two megabytes
SPECIAL = 500  # vouchers of the expired campaign and of the one elsewhere: bad codes that name a voucher
OFFER_DAYS = 30


class Made(msgspec.Struct, frozen=True):
    """A campaign of the run, and the first of its serials."""

    slug: str
    number: int
    first_serial: int
    count: int


class Stage(msgspec.Struct, frozen=True):
    """What there is to load."""

    desk: Desk
    target: Target
    metrics_url: str  # "" where it is not known
    tag: str
    token: str  # an integrator's, for HTTP
    tills: list[Till]  # till n stands in store n modulo the scenario's stores
    main: Made
    expired: Made
    elsewhere: Made
    imported: str  # slug of the campaign that foreign codes are imported into

    def codes(self, made: Made, first: int, count: int) -> list[str]:
        """Codes of `count` vouchers from the campaign's voucher `first` on, counted from 0. Raises GatewayFailed."""
        found: list[str] = []
        for start in range(first, first + count, CODES_PER_CALL):
            query = f"first={made.first_serial + start}&count={min(CODES_PER_CALL, first + count - start)}"
            text = self.desk.ask("GET", f"/v1/campaigns/{made.slug}/codes?{query}").decode()
            found += [line.partition(",")[2] for line in text.splitlines()]
        if len(found) != count:
            raise GatewayFailed(f"{len(found)} codes came of {count} vouchers")
        return found


@contextmanager
def own_deployment(directory: Path, scenario: Scenario, **settings: str) -> Iterator[tuple[Desk, Target, str]]:
    """A gateway of our own, its data in `directory`. `settings` as for Server. Raises GatewayFailed.

    Settings are written beside it, so that the deployment can be opened again after the run.
    """
    with ExitStack() as stack:
        (directory / SETTINGS_FILE).write_text("".join(f"{name}={value}\n" for name, value in sorted(settings.items())))
        home = directory / DEPLOYMENT
        ground = Ground(home, directory, {fault.name for fault in scenario.faults}, stack)
        gateway = stack.enter_context(running_gateway(home, ground.environment, **settings))
        target = Target(
            url=gateway.url,
            directory=home,
            pids={},
            server=gateway.server,
            slow_sync=ground.slow_sync,
            has_small_disk=ground.has_small_disk,
        )
        target.look_again()
        yield gateway, target, gateway.metrics_url


class _Served(msgspec.Struct):
    metrics_url: str = ""


def _served(directory: Path) -> str:
    return msgspec.json.decode((directory / "gateway.json").read_bytes(), type=_Served).metrics_url


@contextmanager
def running_deployment(url: str, token: str, directory: Path | None) -> Iterator[tuple[Desk, Target, str]]:
    """A gateway that runs already; with `directory`, its data on this machine, its processes are watched."""
    desk = Desk(url, token)
    try:
        yield desk, _running_target(url, directory), "" if directory is None else _served(directory)
    finally:
        desk.close()


class _Pid(msgspec.Struct):
    pid: int


def _running_target(url: str, directory: Path | None) -> Target:
    if directory is None:
        return Target(url=url, directory=None, pids={})
    try:
        pids = {"gateway": msgspec.json.decode((directory / "gateway.json").read_bytes(), type=_Pid).pid}
        if (valkey := directory / "valkey" / "valkey.pid").exists():
            pids["valkey"] = int(valkey.read_text())
    except (OSError, msgspec.DecodeError) as error:
        raise GatewayFailed(f"{directory}: no gateway serves this directory: {error}") from error
    return Target(url=url, directory=directory, pids=pids)


def set_up(
    desk: Desk, target: Target, metrics_url: str, scenario: Scenario, vouchers: int, tell: Callable[[str], None]
) -> Stage:
    """Merchants, stores, tills and campaigns of one run, and its vouchers. Raises GatewayFailed."""
    tag = f"{time.time_ns() // 1_000_000:x}"
    merchant, other = f"load-{tag}", f"load-{tag}-other"
    terminals = scenario.terminals
    tell(f"{terminals.stores} stores")
    for slug in (merchant, other):
        desk.post("/v1/merchants", {"merchant": slug, "title": "Load"})
        desk.post("/v1/alliances", {"alliance": slug, "merchants": [slug]})
    for number in range(terminals.stores):
        desk.post("/v1/stores", {"store": f"load-{tag}-{number}", "merchant": merchant, "title": f"Load {number}"})
    asked = {"role": "integrator", "scope": merchant, "label": f"load {tag}"}
    token = desk.post("/v1/tokens", asked)["token"]
    now = datetime.now(UTC)
    current = now - timedelta(days=1), now + timedelta(days=OFFER_DAYS)
    past = now - timedelta(days=3), now - timedelta(days=2)
    tell(f"{vouchers:,} vouchers")
    main = _campaign(desk, f"load-{tag}", merchant, current, vouchers)
    expired = _campaign(desk, f"load-{tag}-past", merchant, past, SPECIAL)
    elsewhere = _campaign(desk, f"load-{tag}-far", other, current, SPECIAL)
    imported = _campaign(desk, f"load-{tag}-import", merchant, current, 0)
    tills = []
    for number in range(terminals.count):
        if number % 100 == 0:
            tell(f"till {number:,} of {terminals.count:,}")
        tills.append(_enrolled(desk, f"load-{tag}-{number % terminals.stores}", number))
    return Stage(
        desk=desk,
        target=target,
        metrics_url=metrics_url,
        tag=tag,
        token=token,
        tills=tills,
        main=main,
        expired=expired,
        elsewhere=elsewhere,
        imported=imported.slug,
    )


def vouchers_before(scenario: Scenario, needed: int) -> int:
    """Vouchers that are issued before the first scan: of the origin's days only the first day's."""
    shape = scenario.arrivals
    if isinstance(shape, Origin) and shape.peak_minutes is None:
        return sends_of(shape)[0]
    return max(needed, scenario.vouchers.issued or 0)


def issue(desk: Desk, slug: str, count: int, name: str) -> int:
    """Issue `count` signed vouchers; the first serial. They follow each other. Raises GatewayFailed."""
    first = 0
    for number, start in enumerate(range(0, count, ISSUE_MAX)):
        body = {"count": min(ISSUE_MAX, count - start), "request_id": f"{name}-{number}"}
        issued = desk.post(f"/v1/campaigns/{slug}/issues", body)["first_serial"]
        first = issued if number == 0 else first
        if issued != first + start:
            raise GatewayFailed(f"somebody else issues vouchers of {slug}")
    return first


def _campaign(desk: Desk, slug: str, alliance: str, days: tuple[datetime, datetime], count: int) -> Made:
    starts, ends = (day.date().isoformat() for day in days)
    offer = {
        "title": "Load",
        "kind": "prepaid",
        "value": "3.50 EUR",
        "starts": starts,
        "ends": ends,
        "alliance": alliance,
    }
    number = desk.post("/v1/campaigns", {"slug": slug, "offer": offer})["campaign"]
    first_serial = issue(desk, slug, count, "first") if count else 0
    return Made(slug, number, first_serial, count)


def _enrolled(desk: Desk, store: str, number: int) -> Till:
    key = Ed25519PrivateKey.generate()
    offered = desk.post("/v1/terminals", {"store": store, "label": f"till {number}"})
    public_key = key.public_key().public_bytes_raw().hex()
    desk.post("/v1/terminals/enrol", {"token": offered["token"], "public_key": public_key})
    return Till(offered["terminal"], key.private_bytes_raw())


def import_codes(desk: Desk, slug: str, count: int) -> None:
    """Codes of another maker. Raises GatewayFailed, OSError."""
    for start in range(0, count, IMPORT_LINES):
        lines = "".join(f"LOAD-{slug}-{number}\n" for number in range(start, min(start + IMPORT_LINES, count)))
        path = f"/v1/campaigns/{slug}/imports/lines?request_id=import-{start}"
        desk.ask("POST", path, lines.encode())
