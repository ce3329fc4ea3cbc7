"""A gateway as a process: it serves until it is told to leave, and leaves without losing an answer.

Leaving: /readyz says so at once, tills are asked to go, and for `drain_seconds` everything still works, because load
balancers need that long to notice. Then nothing new is let in, what is under way is answered, and the parts are closed
in reverse order. A second signal ends the process on the spot; a log that failed does too, without a further answer.
SIGHUP takes over what can change in a process that runs: see RELOADED.
"""

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from gateway.config import BadConfig
from gateway.core import wall_ms
from gateway.diary import Diary, say_so, to_stderr
from gateway.ends import Ends, cause_of
from gateway.keyfile import KeyFault, KeyFile
from gateway.main import Gateway, Report, running, tls_context
from gateway.sd_notify import told_of
from gateway.settings import Config

COLLECT_AFTER = (50_000, 20, 50)  # messages leave no cycles behind; the default would look for them every ten messages
KEYS_S = 0.25  # how often the keys that the log knows are compared with ours: as often as its head is confirmed
RELOADED = frozenset({"drain_seconds"})  # settings; the code keys and the certificate are read again as well

Reread = Callable[[], Config]
"""The configuration as it stands now. Raises BadConfig."""


def run(config: Config, **more: Any) -> int:
    """`serve` on the fast event loop; returns the process's exit code."""
    return uvloop.run(serve(config, **more))


async def serve(
    config: Config,
    *,
    ready: Callable[[Gateway], None] | None = None,
    report: Report | None = None,
    reread: Reread | None = None,
    is_worker: bool = False,
) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean end. `ready` is called once the gateway answers.

    `is_worker`: others share the port, and a supervisor tells where they are and what changed. Raises what `running`
    raises. A log that fails while serving, or a bug in the answer path, ends the process with 1.
    """
    diary = Diary(config.messages, wall_ms, to_stderr) if config.messages.form == "json" else None
    tell = diary.tell if diary is not None else report or say_so
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: _end_on_bug(context, tell))
    asked_to_leave = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, asked_to_leave)
    async with running(config, report=tell, announce=not is_worker, share_port=is_worker) as gateway:
        loop.set_exception_handler(lambda _, context: _end_on_bug(context, tell, gateway.ends))
        gc.collect()
        gc.freeze()  # what exists now stays: no later collection need look at it
        gc.set_threshold(*COLLECT_AFTER)
        if diary is not None:
            for (op, transport), tally in gateway.stream.metrics.tallies.items():
                tally.heard = partial(diary.answered, op, transport)
        live = _Live(gateway, config, tell, reread)
        if reread is not None:
            loop.add_signal_handler(signal.SIGHUP, live.reload)
        gateway.core.watch(live.follow_keys())
        for trouble in gateway.core.troubles():
            tell(f"not ready yet: {trouble}")
        if ready is not None:
            ready(gateway)
        ends: list[asyncio.Future[Any]] = [loop.create_task(asked_to_leave.wait()), gateway.core.fatal]
        with nullcontext() if is_worker else told_of(f"serving at {gateway.url}"):
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if gateway.core.fatal.done():
            error = gateway.core.fatal.exception()
            _end_now(
                f"the gateway ends at once, nothing more is answered: {error}", tell, gateway.ends, cause_of(error)
            )
        tell(f"leaving: tills have {live.config.drain_seconds:g} s to move")
        await gateway.drain(live.config.drain_seconds, is_worker)
    tell("left: everything that was under way is answered")
    return 0


class _Live:
    """What changes while a gateway runs."""

    def __init__(self, gateway: Gateway, config: Config, tell: Report, reread: Reread | None) -> None:
        self.config = config
        self._gateway, self._tell, self._reread = gateway, tell, reread
        self._key_file = KeyFile(Path(config.data_dir))

    def reload(self) -> None:
        """Take over what can be; name what needs a restart. Whatever is wrong changes nothing."""
        assert self._reread is not None
        try:
            fresh = self._reread()
            keys = self._key_file.load()
            if self._gateway.tls is not None:
                tls_context(self.config)  # tried beside: a pair that does not match would spoil the one in use
                self._gateway.tls.load_cert_chain(self.config.server.tls_cert, self.config.server.tls_key)
        except (BadConfig, KeyFault, OSError) as error:
            self._tell(f"nothing was reloaded: {error}")
            return
        self._gateway.core.reload_keys(keys)
        for key in changes(self.config, fresh) - RELOADED:
            self._tell(f"{key} has changed: that needs a restart, the old value stays")
        self.config = msgspec.structs.replace(self.config, drain_seconds=fresh.drain_seconds)
        self._tell("reloaded: drain_seconds, code keys, certificate")

    async def follow_keys(self) -> None:
        """Read the key file again when the log knows of keys we lack: another gateway has added one."""
        core, told = self._gateway.core, False
        while True:
            lacking = core.control.directory.live_keys - core.ring.key_ids
            if lacking:
                with suppress(KeyFault):
                    core.reload_keys(await asyncio.to_thread(self._key_file.load))
                if (lacking - core.ring.key_ids) and not told:
                    told = True
                    named = ", ".join(map(str, sorted(lacking)))
                    self._tell(f"the log knows keys that are not in {self._key_file.path}: {named}. Copy the file here")
            await asyncio.sleep(KEYS_S)


def changes(before: Config, after: Config) -> set[str]:
    """The dotted keys of settings that differ."""
    old, new = _flat(msgspec.to_builtins(before)), _flat(msgspec.to_builtins(after))
    return {key for key in old | new if old.get(key) != new.get(key)}


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _on_signal(asked_to_leave: asyncio.Event) -> None:
    if asked_to_leave.is_set():
        os._exit(1)  # asked twice: whoever asks does not want to wait, and the log holds all that was told
    asked_to_leave.set()


def _end_on_bug(context: Mapping[str, Any], tell: Report, ends: Ends | None = None) -> None:
    """A callback of ours that raised is a bug in the answer path; what a transport or a forgotten task says is not."""
    error = context.get("exception")
    said = f"{context.get('message')}: {type(error).__name__}: {error}" if error else str(context.get("message"))
    if "handle" in context and isinstance(error, Exception):
        _end_now(f"the gateway ends at once: {said}", tell, ends, "bug")
    tell(said)


def _end_now(text: str, tell: Report, ends: Ends | None, cause: str) -> None:
    # Not through the closing of the parts: after a failed fsync nothing may be written, and nobody may be answered.
    # The private Valkey stays for the next gateway to adopt.
    tell(text)
    if ends is not None:
        with suppress(OSError):  # a disk that takes nothing at all any more
            ends.count(cause)
    os._exit(1)
