"""One connection to Valkey with many calls in flight, replies consumed in order, nothing ever sent twice.

Why not redis-py's client: it gives a command a connection of its own and may send it again after a lost answer. A claim
repeated that way would be judged twice. Here a lost connection fails every call in flight with `ArbiterLost`, and the
lane recovers against the log (recovery.py) before it claims again. Only redis-py's `Connection` is used: it connects,
authenticates, writes and parses. Its time-outs are switched off, because they would end a connection that is merely
idle, and would put a task between a call and its write; and it is never let write when it is not connected, because it
would connect anew by itself, and the calls in flight would be answered with another connection's replies.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import redis.exceptions
from redis.asyncio import Connection

LOST = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)
CALLS_IN_FLIGHT_MAX = 256  # twice what look-ups may take: a lane claims two batches at once and recovers call by call
ANSWER_TIMEOUT_S = 2.0  # a claim takes a millisecond; after this, and up to a quarter more, the connection is lost


class ArbiterLost(Exception):
    """The connection broke or timed out: whether the call took place is unknown."""


class ArbiterRefused(Exception):
    """Valkey answered with an error (out of memory, missing function): nothing was written by the call."""


class ArbiterMoved(ArbiterRefused):
    """This server does not answer for the partition, or not now: whoever does must be looked up again."""


class ArbiterUnfit(Exception):
    """This Valkey must not be used: names the setting and the fix."""


def refusal_of(error: redis.exceptions.ResponseError) -> ArbiterRefused:
    """An error reply in words; redis-py takes the words MOVED and ASK off."""
    if isinstance(error, redis.exceptions.MovedError):
        return ArbiterMoved(f"slot {error.slot_id} is at {error.host}:{error.port} now")
    if isinstance(error, redis.exceptions.AskError):
        return ArbiterMoved(f"slot {error.slot_id} is being moved to {error.host}:{error.port}")
    if isinstance(error, redis.exceptions.TryAgainError):
        return ArbiterMoved("its slot is being moved, and some of its keys are elsewhere")
    if isinstance(error, redis.exceptions.ClusterDownError | redis.exceptions.ReadOnlyError):
        return ArbiterMoved(str(error))
    return ArbiterRefused(str(error))


async def connected(connection: Connection) -> None:
    """redis-py's connect, which may be cancelled: its own returns then, as if nobody had asked."""
    await connection.connect()  # type: ignore[no-untyped-call]
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await connection.disconnect(nowait=True)
        raise asyncio.CancelledError


class Pipe:
    """One connection with many calls in flight. A call's reply is the oldest reply not yet taken."""

    def __init__(self, connection: Connection, on_lost: Callable[[], None]) -> None:
        connection.socket_timeout = None
        self._connection = connection
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._reader = self._loop.create_task(self._read())
        self._watch = self._loop.call_later(ANSWER_TIMEOUT_S / 4, self._check_oldest)
        self.lost = False

    @property
    def in_flight(self) -> int:
        """Calls whose reply is not taken yet; also those whose caller gave up."""
        return len(self._waiting)

    async def call(self, *args: Any) -> Any:
        """Send one command and wait for its reply. Raises ArbiterLost, ArbiterRefused."""
        if not self.lost and not self._connection.is_connected:
            self._fail("the connection is gone")
        if self.lost:
            raise ArbiterLost("the connection is gone")
        if len(self._waiting) >= CALLS_IN_FLIGHT_MAX:
            raise ArbiterLost(f"more than {CALLS_IN_FLIGHT_MAX} calls in flight")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((future, self._loop.time()))
        try:
            # Writes before it first yields, so calls leave in the order they were made.
            await self._connection.send_packed_command([hiredis.pack_command(args)], check_health=False)
        except (*LOST, RuntimeError) as error:  # RuntimeError: uvloop's word for a transport that is closed
            self._fail(str(error))
        return await future

    async def _read(self) -> None:
        while not self.lost:
            try:
                reply = await self._connection.read_response(disable_decoding=True)
            except redis.exceptions.ResponseError as error:
                self._settle(refusal_of(error))
            except LOST as error:
                self._fail(str(error) or type(error).__name__)
            else:
                self._settle(reply)

    def _settle(self, reply: Any) -> None:
        future, _ = self._waiting.popleft()
        if future.done():  # its caller gave up; the reply still had to be taken, in order
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _check_oldest(self) -> None:
        if self._waiting and self._loop.time() - self._waiting[0][1] > ANSWER_TIMEOUT_S:
            self._fail(f"no answer within {ANSWER_TIMEOUT_S:g} s")
        elif not self.lost:
            self._watch = self._loop.call_later(ANSWER_TIMEOUT_S / 4, self._check_oldest)

    def _fail(self, why: str) -> None:
        if self.lost:
            return
        self.lost = True
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(ArbiterLost(why))
        self._on_lost()

    async def close(self) -> None:
        """Fail what is in flight and disconnect."""
        self._fail("closed")
        self._watch.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._connection.disconnect(nowait=True)
