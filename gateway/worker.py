"""One worker of `tillgate serve --workers N`: `python -m gateway.worker`, started by supervisor.py and by nobody else.

Its configuration comes as one line of JSON on standard input, and one line of JSON on standard output says where it
answers. Standard input stays open for as long as the supervisor lives: its end means that nobody would restart this
worker or tell it to leave, so it leaves.
"""

import os
import signal
import sys
import threading

import msgspec

from eventstore.log import LogDamaged, LogFailed, LogLocked, LogLost, LogUnreadable
from gateway.config import BadConfig
from gateway.embedded import EmbeddedError
from gateway.keyfile import KeyFault
from gateway.main import Gateway, Served
from gateway.serving import run
from gateway.settings import Config


def _leave_when_orphaned() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _ready(gateway: Gateway) -> None:
    served = Served(os.getpid(), gateway.url, gateway.metrics_url)
    sys.stdout.buffer.write(msgspec.json.encode(served) + b"\n")
    sys.stdout.buffer.flush()


def main() -> int:
    """Returns the exit code."""
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=Config)
    threading.Thread(target=_leave_when_orphaned, name="orphaned", daemon=True).start()
    try:
        return run(config, ready=_ready, is_worker=True)
    except (BadConfig, KeyFault, LogDamaged, LogFailed, LogLocked, LogLost, LogUnreadable, EmbeddedError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"error: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    # Not sys.exit: the thread above sits in a read of standard input, and the interpreter would wait for its lock.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
