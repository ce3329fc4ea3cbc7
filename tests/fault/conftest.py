"""A data directory whose Valkey can have a socket, and a private Valkey in it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from private_valkey import short_directory

from gateway.embedded import EmbeddedValkey


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
async def embedded(directory: Path, reports: list[str]) -> AsyncIterator[EmbeddedValkey]:
    """Not yet started; whatever it started or adopted is gone afterwards."""
    embedded = EmbeddedValkey(directory, on_report=reports.append)
    yield embedded
    await embedded.stop()
