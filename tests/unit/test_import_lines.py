"""A body of codes cut into lines: however the network cuts it, the same lines, and never a line's text in a reason."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bulk import Line, Unfit
from gateway.import_lines import CSV, LINE_BYTES_MAX, NDJSON, PLAIN, LineReader, NoColumn


def read(form: str, *blocks: bytes, column: str = "code") -> list[Line | Unfit]:
    reader = LineReader(form, column)
    return [line for block in blocks for line in reader.feed(block)] + reader.finish()


def test_plain_text_is_a_code_a_line_and_blank_lines_count() -> None:
    assert read(PLAIN, b"a,b\n\n \r\nc d\r\nlast") == [Line(1, "a,b"), Line(4, "c d"), Line(5, "last")]


def test_ndjson_is_strings_or_objects_with_a_code() -> None:
    body = '"a\\nb"\n{"code":"c","value":7}\n\n"é"\n'.encode()
    assert read(NDJSON, body) == [Line(1, "a\nb"), Line(2, "c"), Line(4, "é")]


@pytest.mark.parametrize("wrong", (b"secret", b'{"kode":"secret"}', b"17", b'["secret"]', b'"\xff"', b'{"code":1}'))
def test_a_line_that_is_no_code_in_json_is_told_by_its_number(wrong: bytes) -> None:
    [first, unfit, last] = read(NDJSON, b'"x"\n' + wrong + b'\n"y"\n')
    assert (first, last) == (Line(1, "x"), Line(3, "y"))
    assert isinstance(unfit, Unfit)
    assert unfit.number == 2
    assert "secret" not in unfit.why


def test_csv_has_its_codes_in_the_column_that_the_first_line_names() -> None:
    body = b'\xef\xbb\xbfSerial, Code ,note\r\n1,"x,1",\r\n2,y,"a ""b"""\r\n,,\r\n3\r\n4,"z\r\n'
    assert read(CSV, body) == [
        Line(2, "x,1"),
        Line(3, "y"),
        Unfit(5, "has no code"),
        Unfit(6, "is not a CSV record in one line"),
    ]
    with pytest.raises(NoColumn):
        read(CSV, b"serial,note\n1,x\n")


def test_text_in_another_encoding_is_told() -> None:
    assert read(PLAIN, "café\n".encode("latin-1")) == [Unfit(1, "is not text in UTF-8")]


def test_a_line_without_an_end_fills_no_memory_and_the_next_one_is_read() -> None:
    reader = LineReader(PLAIN)
    for _ in range(100):
        assert reader.feed(b"x" * 1000) == []
    assert len(reader._begun) <= LINE_BYTES_MAX
    [unfit, after] = reader.feed(b"x\nafter\nrest")
    assert isinstance(unfit, Unfit)
    assert (unfit.number, after) == (1, Line(2, "after"))
    assert reader.finish() == [Line(3, "rest")]
    [whole] = read(PLAIN, b"y" * (LINE_BYTES_MAX + 1) + b"\n")
    assert isinstance(whole, Unfit)
    [ended] = read(PLAIN, b"y" * (LINE_BYTES_MAX + 1))
    assert isinstance(ended, Unfit)


@given(st.lists(st.text(max_size=12), max_size=12), st.lists(st.integers(0, 200), max_size=8))
def test_where_the_network_cuts_a_body_does_not_matter(codes: list[str], cuts: list[int]) -> None:
    body = msgspec.json.Encoder().encode_lines(codes)
    at = [0, *sorted(cuts), len(body)]
    blocks = [body[start:end] for start, end in pairwise(at)]
    assert read(NDJSON, *blocks) == read(NDJSON, body)
    assert [line.text for line in read(NDJSON, body) if isinstance(line, Line)] == [code for code in codes if code]
