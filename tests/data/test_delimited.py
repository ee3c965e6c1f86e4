"""CSV as it comes: encodings, delimiters, quotes, broken rows."""

from __future__ import annotations

import codecs
import logging

import pytest

from data.catalog import BadRow, CatalogError
from data.delimited import Record, read_header, read_records, text_encoding


def write(folder, content):
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder, content, **options):
    return list(read_records(write(folder, content), **options))


def test_quotes_line_breaks_blank_lines_and_spaces(tmp_path):
    rows = read(tmp_path, 'id, name\r\n1,"a, ""b"""\r\n\r\n2,"two\nlines"\r\n3,\' c \r\n')
    assert rows == [
        Record(2, {"id": "1", "name": 'a, "b"'}),
        Record(4, {"id": "2", "name": "two\nlines"}),
        Record(6, {"id": "3", "name": "' c"}),
    ]


def test_wrong_number_of_fields_is_told_with_the_line_and_both_counts(tmp_path):
    rows = read(tmp_path, "id,a,b\n1,x,y\n2,x\n3,x,y,z\n4,x,y\n")
    assert [row.line for row in rows if isinstance(row, Record)] == [2, 5]
    assert [(row.source_row, row.reason) for row in rows if isinstance(row, BadRow)] == [
        (3, "3 fields were wanted, as in the header; got 2."),
        (4, "3 fields were wanted, as in the header; got 4."),
    ]


def test_a_quote_that_is_never_closed_loses_no_row_in_silence(tmp_path):
    (bad,) = read(tmp_path, 'id,a\n1,"x\n2,y\n3,z\n')
    assert bad.source_row == 2
    assert "the row on lines 2 to 4 is none: unexpected end of data" in bad.reason
    _, bad, good = read(tmp_path, 'id,a\n0,w\n1,"x\n2,y",3\n4,z\n')
    assert "got 3 (the row runs to line 4: is a quote not closed?)" in bad.reason
    assert good.fields["id"] == "4"


def test_rows_after_a_field_that_is_too_long_or_holds_nul_are_read(tmp_path):
    bad, nul, good = read(tmp_path, f"id,a\n1,{'x' * 140_000}\n2,x\0y\n3,z\n")
    assert "the row on line 2 is none: field larger than field limit" in bad.reason
    assert (nul.source_row, nul.reason.startswith("Text was wanted; the row holds a NUL")) == (3, True)
    assert good == Record(4, {"id": "3", "a": "z"})


def test_unquoted_files_keep_quotes_and_give_further_commas_to_the_last_column(tmp_path):
    rows = read(tmp_path, 'id,colour,name\n1,Red,5" heels, red, new\n2,Blue\n3,,"x\n', quoted=False)
    assert rows[0] == Record(2, {"id": "1", "colour": "Red", "name": '5" heels, red, new'})
    assert rows[1].reason == "3 fields were wanted, as in the header; got 2."
    assert rows[2] == Record(4, {"id": "3", "colour": "", "name": '"x'})


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_delimiter_is_the_one_in_the_header(tmp_path, mark):
    assert read(tmp_path, f"\nid{mark}name\n1{mark}x|y\n") == [Record(3, {"id": "1", "name": "x|y"})]


def test_a_comma_in_the_header_wins_over_a_semicolon(tmp_path):
    assert read_header(write(tmp_path, "id,a;b\n")) == ["id", "a;b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path, encoding):
    rows = read(tmp_path, "id,größe\n1,42 €\n".encode(encoding))
    assert rows == [Record(2, {"id": "1", "größe": "42 €"})]


def test_another_encoding_is_told_once(tmp_path, caplog):
    # The only byte that is not UTF-8 comes after three pieces of a mebibyte: it must be met before the first row is.
    path = write(tmp_path, b"id,a\n" + b"1,xxxxxxxxxxxxx\n" * 200_000 + b"2,caf\xe9\n")
    with caplog.at_level(logging.WARNING):
        assert text_encoding(path) == text_encoding(path) == "cp1252"
    assert len(caplog.records) == 1
    assert "is not UTF-8 (byte 0xe9 near 3200010) and is read as cp1252" in caplog.text


def test_bytes_that_cp1252_lacks_are_read_as_latin_1(tmp_path):
    assert text_encoding(write(tmp_path, b"id\n\x81\xe9\n")) == "latin-1"


def test_a_character_across_two_pieces_and_one_that_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr("data.delimited._CHUNK_BYTES", 5)
    assert text_encoding(write(tmp_path, "id,aéx\n")) == "utf-8-sig"
    (tmp_path / "cut").mkdir()
    assert text_encoding(write(tmp_path / "cut", b"id,a\nx,\xc3")) == "cp1252"


def test_a_changed_file_is_looked_at_again(tmp_path):
    assert text_encoding(write(tmp_path, b"id\nxx\n")) == "utf-8-sig"
    assert text_encoding(write(tmp_path, codecs.BOM_UTF16_LE + "id\nxx\n".encode("utf-16-le"))) == "utf-16"


def test_columns_without_a_name_are_dropped_and_names_come_once(tmp_path):
    assert read(tmp_path, ",id,\n0,1,\n") == [Record(2, {"id": "1"})]
    with pytest.raises(CatalogError, match=r"table.csv has id more than once. Rename one."):
        read(tmp_path, "id,a,id\n1,2,3\n")


@pytest.mark.parametrize("content", ["", "\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(tmp_path, content):
    with pytest.raises(CatalogError, match=r"row of column names was wanted; .*table.csv is empty"):
        read(tmp_path, content)


def test_a_header_that_is_no_csv_is_an_error(tmp_path):
    with pytest.raises(CatalogError, match=r"starts with a row that is not CSV \(unexpected end of data\)"):
        read(tmp_path, 'id,"a\n1,2\n')
