"""Where a TOML file sets its keys."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from gateway.toml_lines import lines_of

names = st.from_regex(r"[a-z][a-z0-9_-]{0,5}", fullmatch=True)
values = (
    st.integers()
    | st.text(alphabet=st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=8)
    | st.just("a'''b")
)


def test_tables_comments_quotes_and_texts_of_several_lines() -> None:
    text = 'a = 1\n# b = 2\ntext = """\nc = 3\n"""\n\n[ t . "u" ] # x\n"d" = 4\n  e.f = 5\n[[many]]\n'
    assert lines_of(text) == {"a": 1, "text": 3, "t.u.d": 8, "t.u.e.f": 9}


@given(st.dictionaries(names, st.dictionaries(names, values, min_size=1, max_size=4), max_size=4), st.integers(0, 3))
def test_every_key_is_where_it_was_written(tables: dict[str, dict[str, object]], blank: int) -> None:
    lines: list[str] = []
    where: dict[str, int] = {}
    for table, keys in tables.items():
        lines += [""] * blank + [f"[{table}]"]
        for key, value in keys.items():
            lines.append(f"{key} = {value!r}" if isinstance(value, int) else f"{key} = {_quoted(str(value))}")
            where[f"{table}.{key}"] = len(lines)
    text = "\n".join(lines)
    assert tomllib.loads(text).keys() == tables.keys()
    assert lines_of(text) == where


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
