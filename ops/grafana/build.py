"""Writes dashboards/*.json: python ops/grafana/build.py. A test holds the files against it, and against the metrics.

Each board answers one question, from the most asked at the top left. Everything is by `job` (a deployment), summed over
its workers by the recording rules where there is one.
"""

import json
from pathlib import Path

from boards_beside import campaign, load_test, projections, runtime, stores
from boards_service import event_log, overview, redeem, valkey
from panels import Json

HERE = Path(__file__).parent / "dashboards"
BOARDS = (overview, redeem, event_log, valkey, projections, stores, campaign, runtime, load_test)


def written(told: Json) -> str:
    """A board as its file's text."""
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for make in BOARDS:
        told = make()
        (HERE / f"{told['uid'].removeprefix('tillgate-')}.json").write_text(written(told), encoding="utf-8")


if __name__ == "__main__":
    main()
