"""tinygpt/data/sources/encodings.py: what is not UTF-8 text is named for what it is, and the step that is told makes it
that.
"""

import subprocess
from pathlib import Path

import pytest

from tests.data.sources.test_documents import own, section, texts
from tinygpt.data.sources import documents, encodings
from tinygpt.files.text import write_text

RUN = subprocess.run
pytestmark = pytest.mark.usefixtures("here")
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"
CHINESE = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。\n"
FRENCH = "Longtemps, je me suis couché de bonne heure. « Je m’endors. » Où êtes-vous, garçon ?\n"
GERMAN = "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte, fand er sich verwandelt. Füße, größer.\n"
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (JAPANESE, "shift_jis"),
        ('{"text": "吾輩は猫である。"}\n', "cp932"),
        ("吾輩は猫である。" * 9999, "cp932"),  # more than is looked at, and no line ends
        ("a" + "话说天下大势" * 9999, "gbk"),
        (JAPANESE, "euc_jp"),
        (CHINESE, "gbk"),
        (CHINESE, "gb18030"),
        (FRENCH, "cp1252"),
        (FRENCH.replace("’", "'"), "latin-1"),
        (GERMAN, "latin-1"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
        *((text, wide) for text in (GERMAN, CHINESE) for wide in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
    ],
)
def test_text_in_another_encoding_is_refused_with_a_step_that_gives_back_the_text(text: str, encoding: str) -> None:
    own(x__txt=("plain\n" * 9 + text * 3).encode(encoding))
    with pytest.raises(ValueError, match=r"own/x\.txt is not UTF-8 text \(byte \d+\)\.") as told:
        texts()
    command = str(told.value).split("`")[1]
    assert command.endswith("-t utf-8 own/x.txt > own/x.utf8.txt")
    RUN(command, shell=True, check=True)
    read = Path("own/x.utf8.txt").read_text(encoding="utf-8-sig")
    assert read == "plain\n" * 9 + text * 3


def test_the_names_of_files_and_the_words_of_a_text_are_told_apart() -> None:
    write_text(Path("own/NEW/x"), "")
    Path("own/NEW/OLD.txt").write_bytes("caf\xe9 OLD NEW".encode("cp1252"))
    with pytest.raises(ValueError, match=r"'café OLD NEW'.*utf-8 own/NEW/OLD\.txt > own/NEW/OLD\.utf8\.txt`"):
        texts()


def test_it_is_shown_how_the_text_reads_in_each_encoding_that_fits() -> None:
    own(x__txt=b"caf\xe9 noir")
    with pytest.raises(ValueError, match=r"It may be cp1252 \('café noir'\) or \w+ \('cafй noir'\)"):
        texts()


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("x__jsonl", b'{"text": "\xe9"}', r"byte 10"),
        ("x__jsonl", '{"text": "a"}\n'.encode("utf-16-le"), "byte 1.*It is UTF-16LE"),
        ("x__csv", "text\nhello\n".encode("utf-16"), "byte 0.*`iconv -f utf-16 -t utf-8 own/x.csv"),
        ("x__txt", b"cut off \xe2\x82", r"byte 8"),
        (
            "x__txt",
            "é".encode() * 99 + b"\xff" + "é".encode() * 99,
            r"byte 198.*UTF-8 with damaged bytes. Drop those: `iconv -c",
        ),
        ("x y__txt", b"\xe9", r"`iconv -f cp1252 -t utf-8 'own/x y\.txt' > 'own/x y\.utf8\.txt'`"),
        ("x__txt", b"one\0two\1", r"x\.txt is not text \(byte 3 is NUL\)\. If it is: `tr -d '.000' < own/x\.txt >"),
        ("x__txt", b"one\n" * 2**19 + b"\0", rf"byte {2**21} is NUL"),
        ("x__csv", b"text\n" + b"one\n" * 2**15 + b"\0", rf"byte {2**17 + 5} is NUL"),
        (
            "x__txt",
            b"\x1f\x8b\x08\x00",
            r"is gzip-compressed, not text\. Unpack it: `gunzip < own/x\.txt > own/x\.utf8\.txt`",
        ),
        ("x__txt", b"%PDF-1.7\n", "is a PDF, not text. Extract its text: `pdftotext own/x.txt`"),
        ("x__md", b"PK\x03\x04\x14\0", r"is a ZIP archive, as \.docx, \.odt and \.epub are"),
        ("x__txt", b"{\\rtf1 hello}", "is RTF, not text. Save it as plain text"),
        ("x__jsonl", b"PAR1\x15", "is a Parquet file, not text. Rename it to .parquet"),
    ],
)
def test_what_is_no_utf8_text_is_named_with_the_next_step(name: str, data: bytes, sentence: str) -> None:
    own(**{name: data})
    with pytest.raises(ValueError, match=sentence):
        texts()


def test_the_place_of_a_wrong_byte_counts_from_the_start_of_the_file() -> None:
    own(x__txt="é".encode() * encodings.CHUNK + b"x" + b"\xff")
    with pytest.raises(ValueError, match=rf"byte {2 * encodings.CHUNK + 1}\)"):
        texts()


def test_a_text_of_one_long_line_or_of_windows_lines_is_text() -> None:
    own(x__txt=b"\xef\xbb\xbf" + "é ".encode() * 2**20, y__txt=b"\r\n" * 9 + b"a\r\n", z__txt="a\f\v\x1b b")
    assert texts() == {"x": "é " * 2**20, "y": "\n" * 9 + "a\n", "z": "a\f\v\x1b b"}


@pytest.mark.parametrize("name", ["x.txt", "x", "x.jsonl", "x.csv", "x.parquet"])
@pytest.mark.parametrize(
    ("pointer", "command"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        ("/annex/objects/SHA256E-s12345--4d7a.txt\n", "git annex get ."),
    ],
)
def test_a_pointer_is_never_read_as_the_text_that_it_stands_for(name: str, pointer: str, command: str) -> None:
    own(a__txt="a" * 600)
    write_text(Path("own", name), pointer)
    with pytest.raises(ValueError, match=rf"own/{name} is a pointer of git-\w+, not the file itself\. Run `{command}`"):
        documents.check_source(section())
