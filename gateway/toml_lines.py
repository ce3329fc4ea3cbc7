"""Where in a TOML file each key is set, which the decoder does not tell. Pure."""

import re

_TABLE = re.compile(r"\s*\[\s*([\w.\-\s\"]+?)\s*\]\s*(#.*)?$").match
_KEY = re.compile(r"\s*([\w.\-\s\"]+?)\s*=").match
_OPENS = re.compile(r'[^=]*=\s*("""|\'\'\')(.*)', re.DOTALL).match


def lines_of(text: str) -> dict[str, int]:
    """Dotted key -> line number, from 1, of text that is TOML. The first place counts, as it does for the decoder."""
    found: dict[str, int] = {}
    table, until = "", ""  # `until`: the quotes that end the text we are in
    for number, line in enumerate(text.splitlines(), 1):
        if until:
            until = "" if until in line else until
            continue
        if (header := _TABLE(line)) is not None:
            table = _bare(header[1]) + "."
        elif (key := _KEY(line)) is not None:
            found.setdefault(table + _bare(key[1]), number)
        if (opened := _OPENS(line)) is not None and opened[1] not in opened[2]:
            until = opened[1]
    return found


def _bare(key: str) -> str:
    """Without the quotes and blanks that TOML allows around its parts."""
    return ".".join(part.strip().strip('"') for part in key.split("."))
