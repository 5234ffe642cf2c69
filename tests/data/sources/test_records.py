"""tinygpt/data/sources/records.py: what .jsonl, .csv, .tsv and .parquet files hold, read strictly."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.sources.test_documents import joined, own, section, texts
from tinygpt.data.sources import documents, records

pytestmark = pytest.mark.usefixtures("here")
ROWS = "".join(f"{number},text {number}\n" for number in range(50))


def parquet(values: object, **columns: object) -> None:
    Path("own").mkdir(exist_ok=True)
    pq.write_table(pa.table({"text": values, **columns}), "own/x.parquet")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x__jsonl", '{"text": "one"}\n\n{"text": "two, 2", "id": 2}\n'),
        ("x__csv", 'id,text\n1,one\n2,"two, 2"\n'),
        ("x__csv", 'id , text \n1,one\n2,"two, 2"\n'),
        ("x__csv", '\ufeff\n \ntext,id\none,1\n \n\n"two, 2",2'),
        ("x__csv", "sep=;\nid;text\n1;one\n2;two, 2\n"),
        ("x__csv", '"sep=,"\r\nid,text\r\n1,one\r\n2,"two, 2"\r\n'),
        ("x__csv", "sep=#\nid#text\n1#one\n2#two, 2\n"),
        ("x__csv", "id;text\n1;one\n2;two, 2\n"),
        ("x__csv", '"id"\t"text"\r1\tone\r2\ttwo, 2\r'),
        ("x__tsv", "id\ttext\n1\tone\n2\ttwo, 2\n"),
        ("x__tsv", "text\none\ntwo, 2\n"),
        ("x__CSV", 'text\none\n"two, 2"\n'),
    ],
)
def test_records_are_a_document_each_whatever_parts_them(name: str, data: str) -> None:
    own(**{name: data})
    assert list(texts().values()) == ["one", "two, 2"]


def test_parquet_is_read_by_row_whatever_its_kind_of_text() -> None:
    values = ["one", "two"]
    for kind in (pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())):
        parquet(pa.array(values).cast(kind), id=[1, 2])
        assert texts() == {"x.parquet/1": "one", "x.parquet/2": "two"}


def test_csv_fields_may_be_long_and_hold_quotes_and_line_ends() -> None:
    own(x__csv='text\n"{}"\n"one\ntwo, ""three"""\n""\n'.format("a" * 200_000))
    assert texts() == {"x.csv/2": "a" * 200_000, "x.csv/4": 'one\ntwo, "three"', "x.csv/5": ""}


def test_lines_in_records_end_as_those_of_text_files_do() -> None:
    text = "one\r\ntwo\rthree\n\r\nfour"
    own(x__jsonl=json.dumps({"text": text}), y__csv=f'text\n"{text}"\n', z__txt=text.encode())
    parquet([text])
    assert set(texts().values()) == {"one\ntwo\nthree\n\nfour"}
    assert len(texts()) == 4


@pytest.mark.parametrize(
    ("line", "first"),
    [
        (0, "line 2"),
        (10, "line 12"),
        (48, "line 50"),
    ],
)
def test_a_quote_that_is_never_closed_fuses_no_rows(line: int, first: str) -> None:
    for rows in (ROWS, ROWS.replace("text 49", '"text 49"')):  # closed by the end, and by the next quote
        own(x__csv="id,text\n" + rows.replace(f",text {line}\n", f',"text {line}\n').replace('""', '"'))
        with pytest.raises(ValueError, match=rf"own/x\.csv, {first}: the row .* never closed"):
            texts()


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("x__csv", 'id,text\n1,a\n2,5" pipe\n', r"x\.csv, line 3: the row .* inside a field"),
        ("x__csv", 'id,text\n1, "a b"\n', "line 2: the row that starts here has a quote"),
        ("x__csv", 'id,text\n1,"say \\"hi\\" now"\n', "line 2: the row that starts here has a quote"),
        ("x__csv", 'id,text\n1,"a" b\n', "line 2: the row that starts here has a quote"),
        ("x__tsv", 'id\ttext\n1\t"a" b\n', r"x\.tsv, line 2: the row that starts here has a quote"),
        (
            "x__csv",
            "text\nHello, world\n",
            r"line 2 has 2 field\(s\), but the header has 1\. Quote",
        ),
        ("x__csv", "id,text\n1\n", r"line 2 has 1 field\(s\), but the header has 2\."),
        ("x__csv", "text,id,text\na,1,b\n", "has several columns 'text'. Rename all but the one"),
        (
            "x__csv",
            "id,body\n1,a\n",
            "x.csv, line 1 has no column 'text'. .* one of: id, body. If that line is already text",
        ),
        ("x__csv", "\n\nid,body\n1,a\n", "line 3 has no column 'text'"),
        ("x__csv", "sep=;\nid;body\n1;a\n", "line 2 has no column 'text'. .* one of: id, body"),
        (
            "x__csv",
            f'"{"A whole row. " * 99}"\n',
            f"one of: {'A whole row. ' * 3}A. If that line is already text",
        ),
        ("x__jsonl", '{"text": "a"}\n{"te', r"x\.jsonl, line 2 is not JSON .* Correct"),
        ("x__jsonl", '{"text": "a"}\n[1]', r"x\.jsonl, line 2 is not an object"),
        ("x__jsonl", "5", r"x\.jsonl, line 1 is not an object"),
        (
            "x__jsonl",
            '[{"text": "a"}]',
            r"is JSON, but an array; .*`jq -c '\.\[\]' own/x\.jsonl > own/x\.lines\.jsonl`",
        ),
        ("x__jsonl", '\n[{"text": "a"}]', "is JSON, but an array"),
        ("x__jsonl", '[\n  {"text": "a"}\n]', "is JSON, but an array"),
        ("x__jsonl", '[{"text": "a"},\n{"text": "b"}]', "is JSON, but an array"),
        ("x__jsonl", '{\n  "text": "a"\n}', r"is JSON, but spread over several lines; .*`jq -c \. own/x\.jsonl"),
        ("x__jsonl", '{"text": "a",\n "id": 1}', "is JSON, but spread over several lines"),
        ("x__jsonl", '{"text": "a", "text": "b"}', "line 1 is not JSON .the key 'text' appears twice"),
        ("x__jsonl", "[" * 100_000, "is JSON, but an array"),
        ("x__jsonl", '{"text": ' + "[" * 100_000, "line 1 is not JSON"),
        ("x__jsonl", '{"body": "a", "id": 1}', "no column 'text'. Set download.text_column to one of: body, id"),
        (
            "x__jsonl",
            '{"text": 5}',
            r"x\.jsonl, line 1: 'text' is 5, which is not text.* or set download\.text_column",
        ),
        (
            "x__jsonl",
            '{"text": ["a", "b"]}',
            r"x\.jsonl, line 1: message 1 is 'a', not an object with role and content",
        ),
        ("x__jsonl", r'{"text": "\ud800"}', "lone surrogate \\(half a character\\)"),
        ("x__parquet", "not parquet", "cannot be read as Parquet"),
    ],
)
def test_what_is_no_record_is_named_with_the_next_step(name: str, data: str, sentence: str) -> None:
    own(**{name: data})
    with pytest.raises(ValueError, match=sentence) as told:
        texts()
    assert len(str(told.value)) < 400


def test_parquet_that_holds_no_text_is_named_with_the_next_step() -> None:
    broken = pa.array([b"one", b"caf\xe9"]).view(pa.string())
    for values, sentence in (
        (broken, r"x\.parquet, row 2: 'text' is not UTF-8 \(byte 3\)\. Write the file again"),
        (broken.dictionary_encode(), r"x\.parquet, row \d: 'text' is not UTF-8"),
        (pa.array([b"one", b"caf\xe9"]), r"x\.parquet, row 2: 'text' is not UTF-8 \(byte 3\)"),
        ([1, 2], r"row 1: 'text' is 1, which is not text"),
        ([["a"], ["b"]], r"row 1: message 1 is 'a', not an object with role and content\. Correct or remove it"),
    ):
        parquet(values)
        with pytest.raises(ValueError, match=sentence):
            texts()
    parquet(["a"], id=[1])
    with pytest.raises(ValueError, match=r"row 1 has no column 'body'\. .* one of: text, id\."):
        texts(text_column="body")


def test_a_file_of_many_columns_or_long_names_gets_a_short_sentence() -> None:
    own(x__jsonl=json.dumps({f"column {number} {'x' * 99}": 1 for number in range(999)}))
    with pytest.raises(ValueError, match="and 987 more") as told:
        texts()
    assert len(str(told.value)) < 700


def test_a_field_too_long_to_be_meant_is_a_quote_that_was_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LARGEST_FIELD", 1000)
    own(x__csv='id,text\n1,"{}"\n'.format("a" * 1001))
    with pytest.raises(ValueError, match=r"line 2: the row .* never closed"):
        texts()


# Null


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_without_text_are_skipped_and_counted(kind: str) -> None:
    values = [None, "one", None, "", "two", None]
    own(x__jsonl="".join(json.dumps({"text": value}) + "\n" for value in values) + '{"text": NaN}\n{"id": 1}\n')
    if kind == "parquet":
        Path("own/x.jsonl").unlink()
        parquet([*values, None, None])
    left_out: list[str] = []
    found = [(name, joined(content)) for name, content in documents.documents(section(), tell=left_out.append)[0]]
    assert found == [(f"x.{kind}/2", "one"), (f"x.{kind}/4", ""), (f"x.{kind}/5", "two")]
    assert left_out == ["row: null in 'text'"] * 5


def test_a_column_of_null_alone_is_refused_before_any_work() -> None:
    own(x__jsonl='{"text": null}\n' * 3)
    with pytest.raises(ValueError, match=r"'text' is null in all 3 rows \(the last is own/x\.jsonl, line 3\)\. Set"):
        documents.check_source(section())
    Path("own/x.jsonl").unlink()
    parquet(pa.nulls(2))
    with pytest.raises(ValueError, match=r"null in all 2 rows \(the last is own/x\.parquet, row 2\)"):
        documents.check_source(section())
