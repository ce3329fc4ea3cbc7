"""Snapshots of the vouchers' state: when one is made, by whom, and whether the one on disk may be used.

Theory. A snapshot (eventstore.snapshot) saves reading the whole log again: state = snapshot + tail of the log. It is
made of nothing but the log, by worker processes beside the gateway (gateway.snapshot_worker), each with slices of the
vouchers, on top of the snapshot before where there is one. Nothing waits for that but a start whose tail would take
longer to replay. Nobody believes a snapshot before its manifest, every section's checksum and its place in the log's
chain were looked at; whatever is wrong is named, and the log is read instead. Deleting the directory is always safe.

It is due when its tail is long (TAIL_RECORDS_MIN) and either a quarter of what it holds or old: so the work stays
a small share of what the gateway does anyway, however much history there is.
"""

import asyncio
import fcntl
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eventstore.events import CampaignPurged, decode_control, payload_head
from eventstore.log import CONTROL, LogDamaged, LogFailed, LogLost, LogReader, LogUnreadable
from eventstore.snapshot import SNAPSHOT_FORMAT, Manifest, Refused, Why, check_owner, check_place
from eventstore.snapshot_file import check_rows, join_rows, put_in_place, read_manifest, read_proven, remove_others
from gateway.control import HEARD_S, LATELY_MS
from gateway.recovery import UNCOUNTED, Counted, Folded
from gateway.settings import Config
from gateway.shared_logs import DeploymentReader
from gateway.snapshot_making import Advance, SnapshotFailed, fold_parts, parts_of, slices_for
from gateway.storage import open_log_reader
from gateway.valkey_server import SEED_FILE

DIRECTORY = "snapshots"
TAIL_RECORDS_MIN = 250_000  # a second or two of replay; below this a snapshot saves nothing worth its making
OLD_MS = 300_000  # with a long tail: the least time between two, however much is written
TAIL_SHARE = 4  # a tail of a quarter of what the snapshot holds makes one due at once
LOOK_S = 15.0  # how often that is asked
REPLAY_S_MAX = 2.0  # a tail that would take longer is folded into a new snapshot before Valkey starts
REPLAY_BATCH_S, REPLAY_RECORD_S = 0.0004, 0.000008  # one `restore` call; measured on a busy machine
SAMPLES = 16  # batches looked at to guess how many records a run of them holds
READ_BATCHES = 500
TROUBLES = (LogDamaged, LogFailed, LogUnreadable, SnapshotFailed, sqlite3.Error, OSError)  # then there is no snapshot
BESIDE_NICE = 10  # while a gateway answers; one that starts waits for it


class Snapshots:
    """The snapshots of one data directory. `report` is told what an operator should know."""

    def __init__(self, config: Config, report: Callable[[str], None]) -> None:
        self.directory = Path(config.data_dir) / DIRECTORY
        self._config, self._report = config, report
        self._freshening = asyncio.Lock()

    def on_disk(self) -> Manifest | Refused:
        """The newest, its rows and its place in the log not looked at."""
        try:
            return read_manifest(self.directory)
        except OSError as error:
            return Refused(Why.UNREADABLE, str(error))

    async def usable(self, reader: DeploymentReader) -> Manifest | Refused:
        """The newest, proven. Raises LogDamaged, LogFailed, LogLost."""
        found = self.on_disk()
        if isinstance(found, Refused):
            return found
        refused = check_owner(found, reader.meta.deployment_id, reader.partitions)
        refused = refused or await _place(reader, found)
        try:
            return refused or await asyncio.to_thread(check_rows, self.directory, found) or found
        except OSError as error:
            return Refused(Why.UNREADABLE, str(error))

    async def counted(self) -> Counted:
        """What the newest has counted, where it is of this log. Raises FileNotFoundError, LogUnreadable, LogLost."""
        found = self.on_disk()
        if isinstance(found, Refused):
            return UNCOUNTED
        reader = await open_log_reader(self._config)
        try:
            if check_owner(found, reader.meta.deployment_id, reader.partitions) or await _place(reader, found):
                return UNCOUNTED
        except (LogDamaged, LogFailed):  # whoever opens it to write says so
            return UNCOUNTED
        finally:
            await reader.close()
        heads = {partition: found.head(partition) for partition in found.heads}
        return Counted(heads, [(op, campaign, n) for _, op, campaign, n in found.applied])

    async def write(self, base: Manifest | None, *, nice: int = 0, advance: Advance = lambda batches: None) -> Manifest:
        """Make one of everything the log holds now, on top of `base`, or from the log's first batch.

        `advance` is told of batches as they are folded. Raises SnapshotFailed, LogDamaged, LogFailed, LogLost.
        """
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
            with _turn(self.directory):
                reader = await open_log_reader(self._config)
                try:
                    return await self._write(reader, base, nice, advance)
                finally:
                    await reader.close()
        except OSError as error:
            raise SnapshotFailed(f"{self.directory}: {error.strerror or error}") from error

    async def _write(self, reader: DeploymentReader, base: Manifest | None, nice: int, advance: Advance) -> Manifest:
        heads = {partition: await reader.head(partition) for partition in range(reader.partitions)}
        purged = sorted(await purged_campaigns(reader))
        at_ms = time.time_ns() // 1_000_000
        rows = self.directory / f"rows-{at_ms}.rdb"
        remove_others(self.directory, base.file if base else self._named())
        slices = base.slices if base else slices_for((await tail_of(reader, None))[1])
        parts = parts_of(rows, heads, base, slices, purged)
        folded = await fold_parts(self._config, parts, purged, nice, advance)
        pieces = [(Path(part.out), one.section) for part, one in zip(parts, folded, strict=True)]
        sections = await asyncio.to_thread(join_rows, rows, heads, pieces)
        applied: Counter[tuple[int, int, int]] = Counter()
        for partition, op, campaign, n in [
            *(base.applied if base else ()),
            *(row for one in folded for row in one.applied),
        ]:
            applied[partition, op, campaign] += n
        manifest = Manifest(
            format=SNAPSHOT_FORMAT,
            deployment_id=reader.meta.deployment_id,
            at_ms=at_ms,
            file=rows.name,
            slices=parts[0].slices,
            heads={partition: (head.seq, head.tip) for partition, head in heads.items()},
            records=(base.records if base else 0) + sum(one.records for one in folded),
            purged=purged,
            applied=[(*which, n) for which, n in sorted(applied.items())],
            sections=sections,
        )
        await asyncio.to_thread(put_in_place, self.directory, manifest)
        return manifest

    def _named(self) -> str:
        found = self.on_disk()
        return "" if isinstance(found, Refused) else found.file

    async def seed(self, home: Path) -> None:
        """Put what a private Valkey is to load when it starts into its directory: what the log says, or nothing."""
        for left in (home / "appendonlydir", home / "appendonlydir.torn"):  # of builds that believed them
            shutil.rmtree(left, ignore_errors=True)
        try:
            reader = await open_log_reader(self._config)
        except (FileNotFoundError, LogUnreadable):
            return
        try:
            manifest = await self._fresh(reader)
            await _purges_heard(reader)  # this makes Valkey forget what is left out
            if manifest is not None:
                os.link(self.directory / manifest.file, home / SEED_FILE)
        except (*TROUBLES, LogLost) as error:
            self._report(f"the private Valkey starts empty, and is filled from the log: {error}")
        finally:
            await reader.close()

    async def _fresh(self, reader: DeploymentReader) -> Manifest | None:
        """A snapshot whose tail is short; None where replaying the whole log is."""
        found = await self.usable(reader)
        base = None if isinstance(found, Refused) else found
        if isinstance(found, Refused) and found.why is not Why.MISSING:
            self._report(f"the snapshot is not used ({found.why}): {found.text}")
        batches, records = await tail_of(reader, base)
        long = batches * REPLAY_BATCH_S + records * REPLAY_RECORD_S > REPLAY_S_MAX
        stale = base is not None and set(base.purged) != await purged_campaigns(reader)
        if not long and not stale:
            return base
        self._report(f"folding {batches:,} batches of the log into a snapshot first")
        return await self.write(base)

    async def keep(self) -> None:
        """Make one whenever it is due, for as long as the gateway runs."""
        while True:
            await asyncio.sleep(LOOK_S)
            with suppress(LogLost):
                await self._keep()

    async def _keep(self) -> None:
        try:
            base = await self._due()
            if base is not None:
                await self.write(None if isinstance(base, Refused) else base, nice=BESIDE_NICE)
        except TROUBLES as error:
            self._report(f"no snapshot: {error}")

    async def _due(self) -> Manifest | Refused | None:
        """What to build on (nothing, if it is refused); None if none is due."""
        reader = await open_log_reader(self._config)
        try:
            return await self.usable(reader) if await _is_due(reader, self.on_disk()) else None
        finally:
            await reader.close()

    async def stored(self, partition: int) -> Folded | None:
        """What a lane recovers from; None where folding the log in this process is quick enough. Raises LogLost."""
        async with self._freshening:
            try:
                reader = await open_log_reader(self._config)
                try:
                    manifest = await self._fresh(reader)
                finally:
                    await reader.close()
            except TROUBLES as error:
                self._report(f"no snapshot: {error}")  # if it is this partition that is damaged, its fold will say so
                return None
        return None if manifest is None else self.folded(manifest, partition)

    def folded(self, manifest: Manifest, partition: int) -> Folded:
        """What a snapshot just proven or just made holds of a partition."""
        rows = read_proven(self.directory / manifest.file, manifest.rows_of(partition))
        return Folded(manifest.head(partition), rows)


async def purged_campaigns(reader: LogReader) -> set[int]:
    """Campaigns whose vouchers Valkey no longer keeps. Raises LogDamaged, LogFailed, LogLost."""
    return set(await _purges(reader))


async def _purges(reader: LogReader) -> dict[int, int]:
    """The same, and when each was purged (ms, by the clock of the gateway that did it)."""
    purged, seq = dict[int, int](), 0
    while batches := await reader.read(CONTROL, seq + 1, READ_BATCHES):
        for batch in batches:
            _, _, at_ms = payload_head(batch.payload)
            events = decode_control(batch.payload).events
            purged |= {event.campaign: at_ms for event in events if isinstance(event, CampaignPurged)}
        seq = batches[-1].seq
    return purged


async def _purges_heard(reader: LogReader) -> None:
    """As Control.purges_heard, before there is one."""
    newest_ms = max((await _purges(reader)).values(), default=0)
    if abs(time.time_ns() // 1_000_000 - newest_ms) < LATELY_MS:
        await asyncio.sleep(HEARD_S)


async def tail_of(reader: LogReader, base: Manifest | None) -> tuple[int, int]:
    """Batches behind a snapshot (None: behind nothing), and about how many records they hold."""
    batches = records = 0
    for partition in range(reader.partitions):
        first, last = (base.heads[partition][0] if base else 0) + 1, (await reader.head(partition)).seq
        if first > last:
            continue
        looked = {first + (last - first) * n // (SAMPLES - 1) for n in range(SAMPLES)}
        found = [len(batch.verdicts) for seq in looked for batch in await reader.read(partition, seq, 1)]
        batches += last - first + 1
        records += (last - first + 1) * sum(found) // len(looked)
    return batches, records


async def _place(reader: LogReader, manifest: Manifest) -> Refused | None:
    for partition, (seq, _) in manifest.heads.items():
        head, tip = await reader.head(partition), None
        if 0 < seq <= head.seq:
            tip = (await reader.read(partition, seq, 1))[0].tip
        if refused := check_place(manifest, partition, head, tip):
            return refused
    return None


async def _is_due(reader: DeploymentReader, found: Manifest | Refused) -> bool:
    if isinstance(found, Refused) or check_owner(found, reader.meta.deployment_id, reader.partitions):
        return (await tail_of(reader, None))[1] >= TAIL_RECORDS_MIN
    if await _place(reader, found):
        return True
    _, records = await tail_of(reader, found)
    is_old = time.time_ns() // 1_000_000 - found.at_ms >= OLD_MS
    return records >= TAIL_RECORDS_MIN and (is_old or records * TAIL_SHARE >= found.records)


@contextmanager
def _turn(directory: Path) -> Iterator[None]:
    """Only one writer at a time. Raises SnapshotFailed."""
    lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SnapshotFailed("another process is making one") from None
        yield
    finally:
        os.close(lock)
