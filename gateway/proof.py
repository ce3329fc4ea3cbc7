"""The proof, from outside: `python -m gateway.proof DATA < journals.ndjson`, with the gateway up, idle or not asked.

A process of its own, which asks no gateway. It reads the event log (opened read-only), the private Valkey of the data
directory, and on standard input what `python -m devices.journal FILE...` prints of the tills' journals. Exit code 0:
all equalities hold; 3: one does not.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import click
import msgspec

from eventstore.events import BadPayload, CampaignPurged, decode_control
from eventstore.log import CONTROL, Head, LogDamaged, LogFailed, LogReader, LogUnreadable
from eventstore.sqlite_file import open_reader
from eventstore.verify import VERIFY_BATCHES, verify
from eventstore.vouchers import FoldedState, apply_batch, empty_state
from gateway.claims import parse_head
from gateway.cli_output import EXIT_DIFFERENT
from gateway.embedded import endpoint_of
from gateway.messages import Verdict
from gateway.proof_equalities import Equality, Live, LogFacts, Told, equalities
from gateway.valkey_client import UNREADABLE, Client, private_client

SCAN_COUNT = 1000  # keys a SCAN step looks at: some milliseconds of Valkey's time


class Proof(msgspec.Struct, frozen=True):
    """Everything found; `verdicts` counts the redemption attempts in the log by what was said, repeats included."""

    holds: bool
    equalities: list[Equality]
    verdicts: dict[str, int]
    partitions: int


async def prove(log: LogReader, valkey: Client, told: Sequence[Told]) -> Proof:
    """Compare log, Valkey and journals. Nothing may be redeemed meanwhile: the three are read one after the other.

    Raises LogFailed, and valkey_client.UNREADABLE.
    """
    facts, rebuilt = LogFacts(told), empty_state(log.partitions)
    try:
        found = [await _chain(log)]
        rebuilt = empty_state(log.partitions, await _purged(log))
        await _walk(log, facts, rebuilt)
    except (LogDamaged, BadPayload) as error:
        found = [_chain_equality({}, str(error))]
    found += equalities(facts, told, rebuilt, await read_live(valkey, log.partitions))
    said = {Verdict(byte).name.lower(): count for byte, count in sorted(facts.verdicts.items())}
    return Proof(all(each.holds for each in found), found, said, log.partitions)


async def _chain(log: LogReader) -> Equality:
    whole = await verify(log, lambda partition, seq, head_seq: None)
    numbers = {"batches": whole.batches, "records": whole.records, "control events": whole.control_events}
    return _chain_equality(numbers, "")


def _chain_equality(numbers: dict[str, int], difference: str) -> Equality:
    says = "the log is whole: every batch intact and joined to the one before it"
    return Equality("log_chain_verified", says, not difference, numbers, difference)


async def _purged(log: LogReader) -> set[int]:
    """Campaigns whose vouchers Valkey no longer keeps."""
    purged, seq = set(), 0
    while batches := await log.read(CONTROL, seq + 1, VERIFY_BATCHES):
        for batch in batches:
            events = decode_control(batch.payload).events
            purged |= {event.campaign for event in events if isinstance(event, CampaignPurged)}
        seq = batches[-1].seq
    return purged


async def _walk(log: LogReader, facts: LogFacts, rebuilt: FoldedState) -> None:
    for partition in range(log.partitions):
        seq = 0
        while batches := await log.read(partition, seq + 1, VERIFY_BATCHES):
            for batch in batches:
                facts.take(batch)
                apply_batch(rebuilt, batch)
            seq = batches[-1].seq


async def read_live(valkey: Client, partitions: int) -> Live:
    """Heads and hashes of every partition. Raises valkey_client.UNREADABLE."""
    heads = {partition: await live_head(valkey, partition) for partition in range(partitions)}
    return Live({key: fields async for key, fields in live_hashes(valkey, partitions)}, heads)


async def live_head(valkey: Client, partition: int) -> Head:
    """Of one partition. Raises valkey_client.UNREADABLE."""
    return parse_head(_octets(await valkey.get(b"{%d}head" % partition)))


async def live_hashes(valkey: Client, partitions: int) -> AsyncIterator[tuple[bytes, dict[bytes, bytes]]]:
    """The hashes of vouchers and codes, one after the other, each once. Raises valkey_client.UNREADABLE."""
    for partition in range(partitions):
        async for found in hashes_of(valkey, partition):
            yield found


async def hashes_of(valkey: Client, partition: int) -> AsyncIterator[tuple[bytes, dict[bytes, bytes]]]:
    """The same, of one partition."""
    prefix, told = b"{%d}" % partition, set[bytes]()
    async for key in valkey.scan_iter(match=prefix + b"*", count=SCAN_COUNT):
        if key not in (prefix + b"head", prefix + b"log", prefix + b"run") and key not in told:
            told.add(key)  # a SCAN may tell a key twice while the server's table grows, two servers while it moves
            fields = await valkey.hgetall(key)
            yield key, {_octets(field): _octets(value) for field, value in fields.items()}


def _octets(reply: bytes | str | None) -> bytes:
    assert not isinstance(reply, str), "the client decodes nothing"
    return reply or b""


async def _prove_directory(directory: Path, told: Sequence[Told]) -> Proof:
    endpoint = endpoint_of(directory)
    if endpoint is None:
        raise click.ClickException(f"{directory} has no private Valkey")
    log = open_reader(directory / "log.db")
    try:
        async with private_client(endpoint) as valkey:
            return await prove(log, valkey, told)
    finally:
        await log.close()


@click.command()
@click.argument("directory", metavar="DATA", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the proof as one JSON object.")
def command(directory: Path, as_json: bool) -> None:
    """Prove that the log, the private Valkey of DATA and the journals on standard input tell one story."""
    try:
        told = msgspec.json.Decoder(Told).decode_lines(sys.stdin.buffer.read())
    except msgspec.MsgspecError as error:
        raise click.ClickException(f"standard input is not what `python -m devices.journal` prints: {error}") from None
    try:
        proof = asyncio.run(_prove_directory(directory, told))
    except (*UNREADABLE, LogFailed, LogUnreadable) as error:
        raise click.ClickException(
            f"the log and the private Valkey of {directory} cannot both be read: {error}"
        ) from None
    click.echo(msgspec.json.encode(proof).decode() if as_json else in_words(proof))
    sys.exit(0 if proof.holds else EXIT_DIFFERENT)


def in_words(proof: Proof) -> str:
    """One line an equality."""
    return "\n".join(f"{'holds' if each.holds else 'DIFFERS'}  {_sentence(each)}" for each in proof.equalities)


def _sentence(equality: Equality) -> str:
    """What must hold, the numbers, and the first difference."""
    numbers = ", ".join(f"{name} {number}" for name, number in equality.numbers.items())
    return "; ".join(filter(None, (equality.says, numbers, equality.difference)))


if __name__ == "__main__":
    command()
