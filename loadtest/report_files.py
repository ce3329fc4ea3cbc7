"""Reads a run's directory for a report or a comparison, and makes the page of it."""

from importlib.resources import files
from pathlib import Path
from random import Random

import msgspec

from loadtest.compare import Comparison, compare
from loadtest.evidence import Judgement
from loadtest.report_html import page
from loadtest.report_model import Report, report
from loadtest.report_times import Reading, read_times
from loadtest.run_files import VERIFY_FILE, RunUnreadable, read_run, read_samples, read_seconds

DRAWING_SEED = 5  # the same two runs always compare the same


class _Verified(msgspec.Struct, frozen=True):
    """What is read of verify.json."""

    invariants: list[Judgement]


def read_whole(directory: Path) -> Reading:
    """All files of a run but its journals. Raises RunUnreadable."""
    return Reading(
        run=read_run(directory),
        times=read_times(read_seconds(directory)),
        samples=read_samples(directory),
        invariants=_invariants(directory / VERIFY_FILE),
    )


def _invariants(path: Path) -> list[Judgement] | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Verified).invariants
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise RunUnreadable(f"{path}: {error}") from error


def compared(base: Path, other: Path) -> tuple[Reading, Reading, Comparison]:
    """Two runs, read, and the second against the first. Raises RunUnreadable, NotComparable."""
    one, two = read_whole(base), read_whole(other)
    return one, two, compare(one, two, _names(base, other), Random(DRAWING_SEED).randrange)  # noqa: S311


def _names(base: Path, other: Path) -> tuple[str, str]:
    """As short as tells them apart: a report is mailed to people who do not care where it lay."""
    short = base.resolve().name, other.resolve().name
    return short if short[0] != short[1] else (str(base), str(other))


def html(shown: Report, against: tuple[Report, Comparison] | None = None) -> str:
    """The report as one HTML file."""
    here = files("loadtest")
    return page(shown, here.joinpath("report.css").read_text(), here.joinpath("report.js").read_text(), against)


def report_of(directory: Path) -> Report:
    """Raises RunUnreadable."""
    return report(read_whole(directory))
