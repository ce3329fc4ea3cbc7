"""One gateway as a process of its own, without the command line. Arguments: data directory, drain seconds.

With a third argument, `bug`, a callback fails as soon as the gateway is ready.
"""

import asyncio
import sys
from pathlib import Path

from stream_world import config_for

from gateway.main import Gateway
from gateway.serving import run


def fail() -> None:
    raise AssertionError("a bug")


def ready(gateway: Gateway) -> None:
    print(f"ready {gateway.url}", flush=True)
    if sys.argv[3:] == ["bug"]:
        asyncio.get_running_loop().call_soon(fail)


if __name__ == "__main__":
    sys.exit(run(config_for(Path(sys.argv[1]), drain_seconds=float(sys.argv[2])), ready=ready))
