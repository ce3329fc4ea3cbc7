"""The console's server side: what each role is told, the live stream, the life of a voucher, files and their policy."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from console_world import HOSTILE, STORES, ConsoleWorld, console_world
from core_world import until
from stream_world import Site, site

from eventstore.log import EventLog
from gateway.console_board import Board
from gateway.console_door import CONSOLE_FILE
from gateway.console_events import Filters
from gateway.console_hub import Hub, Viewer
from gateway.console_live import Live
from gateway.console_scope import View
from gateway.messages import Verdict
from gateway.roles import Principal

LOTUS = {store for store, (merchant, _) in STORES.items() if merchant == "lotus"}
UNUSED = 7000  # serials of autumn-noodles that the past did not touch begin below this


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[ConsoleWorld]:
    async with console_world(tmp_path / "d") as made:
        await until(lambda: made.site.gateway.core.follower.applied(0).seq)
        yield made


async def test_each_role_is_told_what_is_its_own(w: ConsoleWorld) -> None:
    merchant, channel, auditor = w.viewers["merchant"], w.viewers["channel"], w.viewers["auditor"]
    me = {role: await viewer.get("/console/api/me") for role, viewer in w.viewers.items()}
    assert me["merchant"]["screens"] == ["now", "stores", "campaigns", "events"]
    assert me["channel"]["screens"] == ["campaigns"]
    assert me["supervisor"]["screens"] == ["vouchers"]
    assert me["auditor"]["deeds"] == []
    assert me["operator"]["deeds"] == ["void"]
    assert set(me["admin"]["deeds"]) == {"void", "reverse"}

    assert {row["store"] for row in await merchant.get("/console/api/stores")} == LOTUS
    await merchant.get("/console/api/stores/noodle-1", 404)
    await merchant.get("/console/api/system", 403)
    await channel.get("/console/api/stores", 403)
    assert [row["slug"] for row in await channel.get("/console/api/campaigns")] == ["tea-box"]
    await channel.get("/console/api/campaigns/autumn-noodles", 404)

    whole = await auditor.get("/console/api/campaigns/autumn-noodles")
    own = await merchant.get("/console/api/campaigns/autumn-noodles")
    assert own["row"]["issued"] is None
    assert own["forecast"] is None
    assert {store for store, _ in own["stores"]} <= LOTUS
    assert own["row"]["redeemed"] == sum(count for store, count in whole["stores"] if store in LOTUS)
    assert 0 < own["row"]["redeemed"] < whole["row"]["redeemed"]
    assert sum(hour[1] for hour in own["hours"]) == own["row"]["redeemed"]
    now = await merchant.get("/console/api/now")
    assert (now["troubles"], now["shares"]) == ([], [])


async def test_a_till_has_no_console(w: ConsoleWorld) -> None:
    made = await w.viewers["admin"].post("/v1/tokens", {"role": "integrator", "scope": "tea", "label": "till software"})
    stranger = type(w.viewers["admin"])(w.site, made["token"])
    for path in ("me", "now", "stream?topics=now"):
        await stranger.get(f"/console/api/{path}", 403)
    await type(stranger)(w.site, "tg_" + "A" * 52).get("/console/api/me", 401)


async def test_what_happens_is_told_within_a_moment_and_again_after_an_absence(w: ConsoleWorld) -> None:
    codes = w.codes("autumn-noodles", UNUSED, 4)
    admin, merchant = w.viewers["admin"], w.viewers["merchant"]
    async with (
        w.site.till(4) as till,  # lotus-park
        w.site.till(8) as other,  # noodle-1
        admin.stream("topics=now,stores,campaigns,load,tail") as everything,
        merchant.stream("topics=now,tail") as own,
        admin.stream("topics=tail&verdict=refused&store=noodle-1") as refused,
    ):
        for stream in (everything, own, refused):
            await stream.next("hello")
        await w.redeem(till, codes[:2])
        assert await w.redeem(other, codes[:3]) == [
            Verdict.ALREADY_REDEEMED, Verdict.ALREADY_REDEEMED, Verdict.ACCEPTED
        ]  # fmt: skip
        told = await refused.next("tail")
        assert [(e["verdict"], e["store"], e["voucher_id"]) for e in told["events"]] == [
            ("already_redeemed", "noodle-1", f"1-{serial}") for serial in (UNUSED, UNUSED + 1)
        ]
        tail = await own.next("tail", lambda tail: any(e["voucher_id"] == f"1-{UNUSED}" for e in tail["events"]))
        assert {e["store"] for e in tail["events"]} == {"lotus-park"}, "a merchant is told of its own stores only"
        now = await everything.next("now", lambda now: sum(second[1] for second in now["seconds"]) >= 3)
        assert now["mix"]["already_redeemed"] == 2
        rows = await everything.next("stores", lambda rows: sum(row["per_minute"] for row in rows) == 5)
        assert next(row for row in rows if row["store"] == "noodle-1")["per_minute"] == 3
        await everything.next("campaigns")
        await everything.next("load")
        last_id = everything.last_id
        await w.redeem(till, codes[3:])
        await everything.next("tail", lambda tail: any(e["voucher_id"] == f"1-{UNUSED + 3}" for e in tail["events"]))
    async with admin.stream("topics=tail", last_id) as back:
        missed = await back.next("tail")
        assert [e["voucher_id"] for e in missed["events"]] == [f"1-{UNUSED + 3}"]
    async with admin.stream("topics=tail", "0:1,nonsense,control:1,9:9") as late:
        assert (await late.next("lost"))["batches"] > 100, "what is too far back is told as lost"


async def test_a_revoked_token_ends_its_streams(w: ConsoleWorld) -> None:
    made = await w.viewers["admin"].post("/v1/tokens", {"role": "auditor", "label": "for a day"})
    async with type(w.viewers["admin"])(w.site, made["token"]).stream("topics=now") as stream:
        await stream.next("now")
        await w.viewers["admin"].post(f"/v1/tokens/{made['token_id']}/revoke", {})
        assert "token" in (await stream.next("bye"))["why"]
        assert await stream.content.read() == b""


async def test_a_voucher_is_told_from_issue_to_reversal_with_its_places_in_the_log(w: ConsoleWorld) -> None:
    (code,) = w.codes("autumn-noodles", UNUSED, 1)
    operator, supervisor, auditor = (w.viewers[role] for role in ("operator", "supervisor", "auditor"))
    unused = await operator.post("/console/api/vouchers", {"code": code})
    assert (unused["state"], unused["events"], unused["may_void"]) == ("unused", [], True)
    async with w.site.till(4) as till, w.site.till(8) as other:
        await w.redeem(till, [code])
        await w.redeem(other, [code])
    life = await operator.post("/console/api/vouchers", {"voucher_id": f"1-{UNUSED}"})
    assert (life["state"], life["may_void"], life["reversible_id"]) == ("redeemed", False, "")
    redemption = life["events"][0]["redemption_id"]
    seen = await supervisor.post("/console/api/vouchers", {"redemption_id": redemption})
    assert seen["reversible_id"] == redemption
    body = {"reversal_id": "ab" * 16, "reason": HOSTILE}
    await supervisor.post(f"/v1/redemptions/{redemption}/reversal", body)
    life = await auditor.post("/console/api/vouchers", {"code": code})
    assert [(e["op"], e["verdict"]) for e in life["events"]] == [("redeem", "accepted"), ("reverse", "accepted")]
    assert life["events"][1]["reason"] == HOSTILE
    found = await auditor.post("/console/api/vouchers/attempts", {"voucher_id": f"1-{UNUSED}"})
    assert [e["verdict"] for e in found["events"]] == ["accepted", "already_redeemed", "accepted"], "newest first"
    partition, seq, _ = life["events"][0]["position"].split(":")
    page = await auditor.get(f"/console/api/log/{partition}/{seq}")
    assert redemption in [e["redemption_id"] for e in page["events"]]
    await supervisor.post("/console/api/vouchers", {"code": code}, 403)
    await supervisor.post("/console/api/vouchers", {"redemption_id": "cd" * 16}, 404)
    await supervisor.post("/console/api/vouchers/attempts", {"voucher_id": f"1-{UNUSED}"}, 403)


async def test_files_are_kept_for_ever_and_allow_no_foreign_script(w: ConsoleWorld) -> None:
    async with w.site.session.get(w.url) as page:
        text, policy = await page.text(), page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["Cache-Control"] == "no-cache"
    script = text.split('type="module" src="')[1].split('"')[0]
    async with w.site.session.get(w.site.gateway.url + script) as file:
        assert file.status == 200
        assert file.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert file.headers["Content-Security-Policy"] == policy
    for path in (script.replace("static/", "static/0"), script.replace("app.js", "../index.html")):
        async with w.site.session.get(w.site.gateway.url + path) as gone:
            assert gone.status == 404
    for name in ("..%2Fslo.toml", "%2Fetc%2Fpasswd", "nothing"):
        async with w.site.session.get(f"{w.url}/runbooks/{name}") as gone:
            assert gone.status == 404


async def _told(s: Site, directory: Path) -> tuple[Any, Any]:
    token = (directory / "secrets" / "admin.token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    told = []
    for path in ("stores/s1", "campaigns/cake"):
        async with s.session.get(f"{s.gateway.url}/console/api/{path}", headers=headers) as response:
            told.append(await response.json())
    store, campaign = told
    del store["row"]["per_minute"], store["row"]["tills"], campaign["forecast"]
    return store, campaign


async def _until_told(s: Site, directory: Path, fits: Callable[[tuple[Any, Any]], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if fits(await _told(s, directory)):
                return
            await asyncio.sleep(0.02)


async def test_counts_are_the_same_after_a_restart_and_after_a_rebuild(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        codes = await s.w.codes(5)
        async with s.till(1) as till:
            await till.redeem(*(s.w.scan(code) for code in codes), s.w.scan(codes[0]), s.w.scan("TG9"))

        await _until_told(
            s, tmp_path, lambda told: (told[1]["row"]["redeemed"], told[0]["row"]["day_refused"]) == (5, 2)
        )
        first = await _told(s, tmp_path)
    async with site(tmp_path) as s:
        assert await _told(s, tmp_path) == first, "from the file"
    (tmp_path / CONSOLE_FILE).write_bytes(b"no database at all")
    async with site(tmp_path) as s:
        await _until_told(s, tmp_path, lambda told: told == first)


async def test_the_live_side_outlives_a_log_that_was_lost_for_a_while(w: ConsoleWorld) -> None:
    pytest.importorskip("asyncpg", reason="the package asyncpg is not installed (extra `postgres`)")
    from eventstore.postgres_server import PostgresReader, connector

    core, metrics = w.site.gateway.core, w.site.gateway.stream.metrics
    away = PostgresReader(connector("postgresql://nobody@127.0.0.1:1/none", None), core.log.meta)
    hub = Hub(cast(Board, None), Live(0), metrics, cast(EventLog, away), core.control)
    one = Viewer(View(Principal("auditor"), core.control.directory), ("tail",), Filters(), lambda: True)
    hub.viewers.add(one)
    await w.viewers["admin"].post("/v1/merchants", {"merchant": "late", "title": "Late"})
    await hub._tick(False)
    assert not one._frames
    await hub.replay(one, "control:1")
    assert b"event: lost" in one._frames.popleft()[0], "what cannot be read is told as lost"
    hub._log = core.log
    await hub._tick(False)
    assert b"merchant late" in one._frames.popleft()[0], "and nothing is skipped once it is back"
