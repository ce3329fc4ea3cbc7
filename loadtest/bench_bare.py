"""The control: a server that decodes what the gateway decodes, decides nothing, remembers nothing, and answers.

`python -m loadtest.bench_bare` prints its port and serves until its stdin ends. It runs as the gateway does (uvloop,
the collector frozen, no access log), so that what a gateway costs above it is what a gateway does.
"""

import asyncio
import gc
import sys
import time

import msgspec
import uvloop
from aiohttp import WSMsgType, web

from gateway.messages import (
    SUBPROTOCOL,
    Answer,
    Challenge,
    FromTill,
    Hello,
    Place,
    Proof,
    RedeemMany,
    RedemptionRequest,
    Verdict,
    Verdicts,
    Welcome,
)

KEEP_ALIVE_S, COLLECT_AFTER = 75.0, (50_000, 20, 50)  # as the gateway has them

_request = msgspec.json.Decoder(RedemptionRequest)
_message = msgspec.msgpack.Decoder(FromTill)
_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode
_ACCEPTED = Verdict.ACCEPTED.name.lower()


async def redeem(request: web.Request) -> web.Response:
    """POST /v1/redemptions."""
    body = _request.decode(await request.read())
    return web.Response(body=_encode_json(Answer(body.redemption_id, _ACCEPTED)), content_type="application/json")


async def stream(request: web.Request) -> web.WebSocketResponse:
    """GET /v1/stream."""
    socket = web.WebSocketResponse(compress=False, protocols=(SUBPROTOCOL,))
    await socket.prepare(request)
    async for frame in socket:
        if frame.type is WSMsgType.BINARY:
            await socket.send_bytes(_encode(_answer_to(_message.decode(frame.data))))
    return socket


def _answer_to(message: FromTill) -> Challenge | Welcome | Verdicts:
    match message:
        case RedeemMany(ref=ref, scans=scans):
            count = len(scans)
            return Verdicts(ref, bytes(count), time.time_ns() // 1_000_000, [Place(0, 0, 0, count)], {})
        case Hello():
            return Challenge(bytes(32))
        case Proof():
            return Welcome("bare", 0, "en")
        case _:
            raise AssertionError(message)


async def _serve() -> None:
    app = web.Application()
    app.add_routes([web.post("/v1/redemptions", redeem), web.get("/v1/stream", stream)])
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE_S)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(_serve())
