"""Fetches the console's third-party files from npm into gateway/console/vendor/ and checks them, byte for byte.

    python ops/vendor_console.py            check what is there against the sums below (no network)
    python ops/vendor_console.py --fetch    get it anew: npm pack, unpack, check, copy

The files are used as their makers ship them, unchanged, each with its licence beside it. A newer version means: change
the number and the sums here, fetch, look at the console, commit both.
"""

import argparse
import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "gateway" / "console" / "vendor"
GZIP_BYTES_MAX = 60_000  # all of it together: a page that opens on a phone in a cellar
PACKAGES = {  # name and version: {name here: (path in the package, sha256)}
    "preact@11.2.0": {
        "preact.mjs": ("dist/preact.mjs", "bdcbd9abdf2c77c5c45326eab42191e949222d479d0d5f69467387a77040cb55"),
        "hooks.mjs": ("hooks/dist/hooks.mjs", "e862ab2973aa6455eaa0f77c5d832d2157d6be59a17c8ba546550a575b58c6b4"),
        "preact.LICENSE": ("LICENSE", "1fe6958409c8c257a70c587a18b6f7f412b179b456630790d30b2ec9a8e4b7d4"),
    },
    "htm@3.1.1": {
        "htm.mjs": ("dist/htm.mjs", "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4"),
        "htm.LICENSE": ("LICENSE", "740725f7252e750af735d0028cc534970772f513331e9f68150fede8fb3ce00f"),
    },
    "uplot@1.6.32": {
        "uplot.js": ("dist/uPlot.iife.min.js", "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"),
        "uplot.css": ("dist/uPlot.min.css", "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
        "uplot.LICENSE": ("LICENSE", "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"),
    },
}


def fetch() -> None:
    """Put every file in its place. Raises subprocess.CalledProcessError, SystemExit where a sum differs."""
    VENDOR.mkdir(parents=True, exist_ok=True)
    for package, files in PACKAGES.items():
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run(["npm", "pack", "--silent", package], cwd=directory, check=True, stdout=subprocess.DEVNULL)
            (archive,) = Path(directory).glob("*.tgz")
            with tarfile.open(archive) as packed:
                for name, (path, sha256) in files.items():
                    member = packed.extractfile(f"package/{path}")
                    assert member is not None, f"{package} has no {path}"
                    content = member.read()
                    if hashlib.sha256(content).hexdigest() != sha256:
                        sys.exit(f"{package}: {path} is not the file that was looked at when it was taken in")
                    (VENDOR / name).write_bytes(content)


def faults() -> list[str]:
    """What is wrong with the files that are there; empty if nothing is."""
    expected = {name: sha256 for files in PACKAGES.values() for name, (_, sha256) in files.items()}
    found = []
    for name, sha256 in expected.items():
        path = VENDOR / name
        if not path.exists():
            found.append(f"{path} is missing: python ops/vendor_console.py --fetch")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            found.append(f"{path} was changed: python ops/vendor_console.py --fetch")
    found += [f"{path} comes from nowhere" for path in VENDOR.iterdir() if path.name not in expected]
    size = sum(len(gzip.compress(path.read_bytes())) for path in VENDOR.iterdir() if path.suffix != ".LICENSE")
    if size >= GZIP_BYTES_MAX:
        found.append(f"all of it takes {size} bytes packed; at most {GZIP_BYTES_MAX}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The console's third-party files.")
    parser.add_argument("--fetch", action="store_true", help="get them from npm first")
    if parser.parse_args().fetch:
        fetch()
    wrong = faults()
    print("\n".join(wrong) or "all as recorded")
    sys.exit(1 if wrong else 0)
