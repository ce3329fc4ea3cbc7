"""Limits of the shipped code that a short run never meets: small in some seeds, and put back afterwards."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sim import valkey_model

from gateway import ids, lane, loading, recovery

LIMITS: tuple[tuple[Any, str, tuple[int, ...]], ...] = (
    (ids, "GENERATION_IDS", (120, ids.GENERATION_IDS)),  # more than the tills have under way, as the shipped one is
    (loading, "LOAD_FIELDS_MAX", (1, loading.LOAD_FIELDS_MAX)),
    (valkey_model, "SCAN_KEYS", (1, valkey_model.SCAN_KEYS)),
    (valkey_model, "TRIM_EVERY", (2, valkey_model.TRIM_EVERY)),
    (recovery, "REPLAY_BATCHES_MAX", (3, recovery.REPLAY_BATCHES_MAX)),
    (lane, "RECORDS_PER_BATCH_MAX", (3, lane.RECORDS_PER_BATCH_MAX)),
    (lane, "SECOND_BATCH_RECORDS", (1, lane.SECOND_BATCH_RECORDS)),
)


def draw_limits(choose: random.Random) -> None:
    """Those of one run."""
    for module, name, values in LIMITS:
        setattr(module, name, choose.choice(values))


@contextmanager
def limits_put_back() -> Iterator[None]:
    """Others in this process use them as they are."""
    try:
        yield
    finally:
        for module, name, values in LIMITS:
            setattr(module, name, values[-1])
