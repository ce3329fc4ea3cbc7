"""`tillgate log verify --state`: whether Valkey holds what the log adds up to."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli_output import Fault, progress

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from eventstore.log import LogReader
    from gateway.settings import Config

ATTEMPTS_MAX = 3  # on a busy deployment something moves each time


async def compare_states(reader: "LogReader", config: "Config") -> dict[str, Any]:
    """What to tell: `state` is equal, different or moved. Raises Fault, LogDamaged, LogFailed, LogLost."""
    from redis.exceptions import RedisError

    from gateway.snapshots import purged_campaigns
    from gateway.state_check import check_state

    hashes, different = 0, list[str]()
    purged = await purged_campaigns(reader)
    valkey = _client(config)
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
    except (RedisError, OSError) as error:
        raise Fault(f"Valkey: {error}", hint="tillgate doctor") from None
    finally:
        await valkey.aclose()
    state = {"state": "different" if different else "equal", "hashes": hashes}
    return state | {"different": different} if different else state


def _client(config: "Config") -> "Redis":
    from redis.asyncio import Redis

    from gateway.embedded import endpoint_of
    from gateway.keyfile import read_secret
    from gateway.proof import connected

    if config.valkey.url:
        name = config.valkey.password_file
        password = read_secret(Path(name)).decode().strip() if name else None
        return Redis.from_url(config.valkey.url, password=password)
    endpoint = endpoint_of(Path(config.data_dir))
    if endpoint is None:
        raise Fault("the private Valkey never ran", hint="tillgate serve")
    return connected(endpoint)
