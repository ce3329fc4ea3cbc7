"""Sets a deployment up over its HTTP API: stores, tills, one campaign, issued and imported codes."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from chaos_tills import Stage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.codes import typed_code
from gateway.deployment import TOKEN_FILE

MERCHANT, SLUG, CAMPAIGN = "chaos-cafe", "chaos", 1
TYPED_CODES = 600
CODES_PER_CALL = 250_000


class Api:
    """The admin's side of a gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str, directory: Path) -> None:
        self._session, self._url = session, url
        self._headers = {"Authorization": f"Bearer {(directory / TOKEN_FILE).read_text().strip()}"}

    async def post(self, path: str, body: object) -> Any:
        async with self._session.post(self._url + path, json=body, headers=self._headers) as response:
            assert response.status == 200, f"{path}: {response.status} {await response.text()}"
            return await response.json()

    async def text(self, path: str) -> str:
        async with self._session.get(self._url + path, headers=self._headers) as response:
            assert response.status == 200, f"{path}: {response.status} {await response.text()}"
            return await response.text()


async def set_up(url: str, directory: Path, tills: int, vouchers: int) -> Stage:
    """Terminal n, the n-th to enrol, stands in store s<n>."""
    async with aiohttp.ClientSession() as session:
        api = Api(session, url, directory)
        await api.post("/v1/merchants", {"merchant": MERCHANT, "title": "Chaos Café"})
        keys = {}
        for number in range(1, tills + 1):
            await api.post("/v1/stores", {"store": f"s{number}", "merchant": MERCHANT, "title": f"Store {number}"})
            offered = await api.post("/v1/terminals", {"store": f"s{number}", "label": f"till {number}"})
            assert offered["terminal"] == number, "terminals are numbered in their order"
            keys[number] = key = Ed25519PrivateKey.generate()
            body = {"token": offered["token"], "public_key": key.public_key().public_bytes_raw().hex()}
            await api.post("/v1/terminals/enrol", body)
        await api.post("/v1/campaigns", {"slug": SLUG, "offer": _offer(list(keys))})
        issue = {"count": vouchers, "request_id": "chaos"}
        first = (await api.post(f"/v1/campaigns/{SLUG}/issues", issue))["first_serial"]
        signed: list[str] = []
        while len(signed) < vouchers:
            count = min(CODES_PER_CALL, vouchers - len(signed))
            text = await api.text(f"/v1/campaigns/{SLUG}/codes?first={first + len(signed)}&count={count}")
            signed += [line.partition(",")[2] for line in text.splitlines()]
        typed = [typed_code(number) for number in random.Random(7).sample(range(10**15), TYPED_CODES)]
        came = await api.post(f"/v1/campaigns/{SLUG}/imports", {"request_id": "typed", "codes": typed})
        assert came["accepted"] == TYPED_CODES, came
        shown = await api.post("/v1/vouchers/show", {"code": typed[0]})
        campaign, _, serial = shown["voucher_id"].partition("-")
        assert int(campaign) == CAMPAIGN
        return Stage(keys, signed, first, typed, int(serial))


def _offer(tills: list[int]) -> dict[str, object]:
    now, month = datetime.now(UTC), timedelta(days=30)  # no clock step of ours leaves the window
    return {
        "title": "Coffee",
        "kind": "prepaid",
        "value": "3.50 EUR",
        "starts": (now - month).date().isoformat(),
        "ends": (now + month).date().isoformat(),
        "stores": [f"s{number}" for number in tills],
        "reversal_window": "30d",
    }
