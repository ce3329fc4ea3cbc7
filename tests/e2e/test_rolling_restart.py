"""Workers replaced one after another under load: no acknowledgement is lost, and every till gets its answer."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("asyncpg", reason="the package asyncpg is not installed (extra `postgres`)")

from rolling import rolled
from shared_world import new_site

if TYPE_CHECKING:
    from private_postgres import PostgresServer


@pytest.mark.timeout(180)
async def test_a_rolling_restart_loses_no_answer(
    postgres: "PostgresServer", valkey_endpoint: str, tmp_path: Path
) -> None:
    site = new_site(tmp_path / "data", await postgres.emptied(), valkey_endpoint)
    found = await rolled(site, workers=2, rate=150, seconds=2, till_count=12)
    assert found.holds, found
    assert found.scanned > 150, found
