"""README.md and README.zh-CN.md say the same, section by section, as far as that can be seen without reading them.

Wording is free. Code, names in backticks (commands are such), links, tables, numerals and the order of paragraphs
are not.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

import pytest
from source_tree import ROOT

ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
SWITCH = {ENGLISH: f"[简体中文]({CHINESE})", CHINESE: f"[English]({ENGLISH})"}  # the line below the title
PICTURES = {  # what is shown in the reader's own language
    "tests/browser/reference/desk-accepted.png": "tests/browser/reference/desk-zh-accepted.png",
    "tests/browser/reference/desk-refused.png": "tests/browser/reference/desk-zh-refused.png",
    **{
        f"ops/tour/{name}.png": f"ops/tour/{name}-zh.png" for name in ("now", "campaign", "voucher", "stores", "system")
    },
}
CODE = re.compile(r"^```.*?^```$|^    \S.*?$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)]+)\)|<(https?://[^>]+)>")
NUMERAL = re.compile(r"\d+(?:[.,]\d+)*")


class Section(NamedTuple):
    level: int
    title: str
    body: str


def sections(text: str) -> list[Section]:
    """What stands below each heading. Code is left out of it: a `#` there begins a comment."""
    parts = re.split(r"^(#+) (.+)$", CODE.sub("~~~", text), flags=re.MULTILINE)
    assert parts[0] == "", "a README begins with its title"
    return [
        Section(len(marks), title, body) for marks, title, body in zip(*(parts[n::3] for n in (1, 2, 3)), strict=True)
    ]


def blocks(body: str) -> list[str]:
    return [block.strip("\n") for block in re.split(r"\n\s*\n", body) if block.strip()]


def cells(table: str) -> list[list[str]]:
    return [row.strip("|").split("|") for row in table.splitlines()]


def links(body: str) -> Counter[str]:
    found = ["".join(match) for match in LINK.findall(body)]
    return Counter(PICTURES.get(target, target) for target in found)


def spans(body: str) -> Counter[str]:
    return Counter(" ".join(span.split()) for span in SPAN.findall(body))


def numerals(text: str) -> list[str]:
    """Those of the prose, in order: not of names in backticks, nor of links, which are compared whole."""
    return NUMERAL.findall(LINK.sub("", SPAN.sub("", text)))


def outline(body: str) -> list[tuple[str, int]]:
    """Each block: what it is, and of how many entries, rows or words in bold it consists."""
    kinds = {"|": "table", "-": "list", "1": "list", "!": "pictures", "~": "code"}
    marks = {"table": r"^\|", "list": r"^(?:-|\d+\.) ", "pictures": r"!\[", "code": "~~~"}
    found = [(kinds.get(block[0], "prose"), block) for block in blocks(body)]
    return [(kind, len(re.findall(marks.get(kind, r"\*\*"), block, re.MULTILINE))) for kind, block in found]


def table_differences(english: str, chinese: str) -> Iterator[str]:
    ours, theirs = ([row for b in blocks(body) if b[0] == "|" for row in cells(b)] for body in (english, chinese))
    for row, other in zip_longest(ours, theirs, fillvalue=[]):
        if len(row) != len(other):
            yield f"a row has {len(row)} cells and {len(other)}: {row} and {other}"
            continue
        for cell, same in zip(row, other, strict=True):
            if numerals(cell) != numerals(same):
                yield f"numbers of a cell: {cell.strip()} and {same.strip()}"
            if bool(cell.strip()) != bool(same.strip()):
                yield f"an empty cell: {row} and {other}"


def section_differences(english: str, chinese: str) -> Iterator[str]:
    if outline(english) != outline(chinese):
        yield f"blocks: {outline(english)} and {outline(chinese)}"
    for what, of in (("links", links), ("names in backticks", spans)):
        missing, extra = of(english) - of(chinese), of(chinese) - of(english)
        if missing or extra:
            yield f"{what}: not in Chinese {sorted(missing)}, only there {sorted(extra)}"
    ours, theirs = (Counter(numerals(body)) for body in (english, chinese))
    if ours != theirs:
        yield f"numerals: not in Chinese {sorted(ours - theirs)}, only there {sorted(theirs - ours)}"
    yield from table_differences(english, chinese)


def differences(english: str, chinese: str) -> list[str]:
    if CODE.findall(english) != CODE.findall(chinese):
        return [f"code: {a!r} and {b!r}" for a, b in zip_longest(*map(CODE.findall, (english, chinese))) if a != b]
    ours, theirs = sections(english), sections(chinese)
    if [section.level for section in ours] != [section.level for section in theirs]:
        return [f"headings: {[s.title for s in ours]} and {[s.title for s in theirs]}"]
    found = []
    for section, other in zip(ours, theirs, strict=True):
        found += [f"{section.title}: {one}" for one in section_differences(section.body, other.body)]
    return found


def read(name: str) -> str:
    """A README without the line that leads to the other one, which must be there."""
    text = (ROOT / name).read_text("utf-8")
    title, _, switch, *_ = text.splitlines()
    assert title == "# Tillgate"
    assert switch == SWITCH[name]
    return text.replace(f"{switch}\n\n", "", 1)


def test_both_readmes_say_the_same() -> None:
    found = differences(read(ENGLISH), read(CHINESE))
    assert not found, f"mend {CHINESE} (or {ENGLISH}):\n" + "\n".join(found)


@pytest.mark.parametrize("name", (ENGLISH, CHINESE))
def test_what_a_readme_links_to_is_there(name: str) -> None:
    targets = ["".join(match) for match in LINK.findall(CODE.sub("", (ROOT / name).read_text("utf-8")))]
    missing = [target for target in targets if not target.startswith("http") and not (ROOT / target).exists()]
    assert len(targets) > 10
    assert not missing


def test_the_chinese_one_is_chinese() -> None:
    text = CODE.sub("", read(CHINESE))
    assert [title for level, title, _ in sections(text) if level > 1 and not re.search("[一-鿿]", title)] == []
    assert re.findall(r"[一-鿿][,;:?!(]|[,;:?!)][一-鿿]", LINK.sub("]", SPAN.sub("", text))) == [], (
        "half-width punctuation"
    )


def replaced(text: str, pattern: str, by: str) -> str:
    changed, count = re.subn(pattern, by, text, count=1, flags=re.MULTILINE)
    assert count == 1, f"the README has nothing like {pattern} any more"
    assert changed != text
    return changed


@pytest.mark.parametrize(
    ("pattern", "by", "told"),
    (
        (r"^## .+\n", "", "headings"),
        (r"^## ", "### ", "headings"),
        (r"^make demo$", "make  demo", "code"),
        (r"^    scan bytes", "    scan", "code"),
        (r"`make chaos`", "`make chao`", "backticks"),
        (r"`make sim`", "make sim", "backticks"),
        (r"\(ops/upgrade\.md\)", "(ops/slo.toml)", "links"),
        (r"desk-zh-accepted\.png", "desk-ready.png", "links"),
        (r"<http://127\.0\.0\.1:8470>", "<http://127.0.0.1:8471>", "links"),
        (r"^(\| a.*\| )\d", r"\g<1>0", "numbers of a cell"),
        (r"^\| c2.*\n", "", "table"),
        (r"^(\| d.*)\|[^|]+\|$", r"\g<1>|", "cells"),
        (r"^(\| HID POS.*)\| \|", r"\g<1>| x |", "empty cell"),
        (r"3\.11", "3.10", "numerals"),
        (r"^- \*\*.+\n", "", "list"),
        (r"^(\S.+)\n\n(?=\S+.+\n\n## )", r"\g<1>\n", "blocks"),
        (r"\n\Z", "\n\nA word more.\n", "blocks"),
    ),
)
def test_what_is_said_in_one_only_is_noticed(pattern: str, by: str, told: str) -> None:
    chinese = read(CHINESE)
    found = differences(chinese, replaced(chinese, pattern, by))
    assert told in "\n".join(found)
