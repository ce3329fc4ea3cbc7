"""`tillgate log verify --state`: whether Valkey holds what the log adds up to."""

from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.cli_output import Fault, progress

if TYPE_CHECKING:
    from eventstore.log import LogReader
    from gateway.settings import Config

ATTEMPTS_MAX = 3  # on a busy deployment something moves each time


async def compare_states(reader: "LogReader", config: "Config") -> dict[str, Any]:
    """What to tell: `state` is equal, different or moved. Raises Fault, LogDamaged, LogFailed, LogLost."""
    from gateway.snapshots import purged_campaigns
    from gateway.state_check import check_state
    from gateway.valkey_client import UNREADABLE, client_of

    hashes, different = 0, list[str]()
    purged = partial(purged_campaigns, reader)
    valkey = client_of(config)
    if valkey is None:
        raise Fault("the private Valkey never ran", hint="tillgate serve")
    try:
        for partition in range(reader.partitions):
            for _ in range(ATTEMPTS_MAX):
                with progress("state", (await reader.head(partition)).seq) as advance:
                    found = await check_state(reader, partition, purged, valkey, advance)
                if not found.moved:
                    break
            else:
                return {"state": "moved", "hint": "ask again when nothing is redeemed"}
            hashes += found.hashes
            different += found.different
    except UNREADABLE as error:
        raise Fault(f"Valkey: {error}", hint="tillgate doctor") from None
    finally:
        await valkey.aclose()
    state = {"state": "different" if different else "equal", "hashes": hashes}
    return state | {"different": different} if different else state
