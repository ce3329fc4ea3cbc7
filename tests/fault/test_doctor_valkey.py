"""What `tillgate doctor` says of an external Valkey that would forget, or that refuses writes."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from private_valkey import server_program

from gateway.config import Loaded
from gateway.doctor import Finding
from gateway.doctor_servers import valkey as looked_at
from gateway.settings import Config, ValkeyConfig

START_S = 10.0


@pytest.fixture
def external() -> Iterator[redis.Redis]:
    """A Valkey of its own that keeps an append-only file, with the defaults of its maker."""
    home = Path(tempfile.mkdtemp(prefix="tillgate-"))
    settings = ("--port", "0", "--maxmemory-policy", "noeviction", "--appendonly", "yes", "--save", "900 1")
    files = ("--unixsocket", home / "v.sock", "--dir", home / "files", "--logfile", home / "v.log")
    (home / "files").mkdir()
    server = subprocess.Popen([server_program(), *settings, *files])
    client = redis.Redis(unix_socket_path=str(home / "v.sock"))
    try:
        _until(lambda: _answers(client))
        yield client
    finally:
        client.close()
        server.kill()
        server.wait()
        shutil.rmtree(home)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _until(condition: object) -> None:
    deadline = time.monotonic() + START_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


async def _said(client: redis.Redis) -> dict[str, Finding]:
    path = client.connection_pool.connection_kwargs["path"]
    config = Config(valkey=ValkeyConfig(url=f"unix://{path}"))
    return {found.check: found for found in await looked_at(Loaded(config, {}), Path("unused"), gateway_runs=False)}


async def test_a_torn_file_that_would_be_continued_is_named_with_the_fix(external: redis.Redis) -> None:
    found = (await _said(external))["valkey torn file"]
    assert (found.state, "aof-load-truncated no" in found.fix) == ("fail", True)
    external.config_set("aof-load-truncated", "no")
    assert (await _said(external))["valkey torn file"].state == "ok"


async def test_a_valkey_that_cannot_write_is_named_before_a_till_meets_it(external: redis.Redis) -> None:
    assert (await _said(external))["valkey writes"].state == "ok"
    external.config_set("appendonly", "no")
    shutil.rmtree(external.config_get("dir")["dir"])
    external.bgsave()
    _until(lambda: external.info("persistence")["rdb_last_bgsave_status"] == "err")
    with pytest.raises(redis.ResponseError, match="MISCONF"):
        external.set("a", "b")
    found = (await _said(external))["valkey writes"]
    assert (found.state, "MISCONF" in found.text) == ("fail", True)
