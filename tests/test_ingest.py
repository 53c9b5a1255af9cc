"""Files to documents: what is read, in what order, and what a damaged corpus is told."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from documents import ids_in

from rag import ingest
from rag.core import Document, Located
from rag.errors import CorpusError
from rag.ingest import READERS, File, LeftOut, Skipped, find_files, jsonl, read_corpus
from rag.ingest.jsonl import MAX_LINE
from rag.ingest.text import MAX_FILE, read_markdown

BOM = b"\xef\xbb\xbf"


def read(*sources: Path) -> list[Located]:
    """Documents of a corpus of which nothing is skipped."""
    left_out = LeftOut()
    located = list(read_corpus(find_files(sources, left_out), left_out))
    assert left_out.skipped == []
    return located


def read_what_can_be(*sources: Path) -> tuple[list[str], list[Skipped]]:
    """(ids of its documents, what was skipped)"""
    left_out = LeftOut()
    located = list(read_corpus(find_files(sources, left_out), left_out))
    return [one.document.id for one in located], left_out.skipped


def find(*sources: Path) -> list[str]:
    return [file.name for file in find_files(sources, LeftOut())]


def documents(*sources: Path) -> list[Document]:
    return [located.document for located in read(*sources)]


def write_records(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_bytes(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def refusal(*sources: Path) -> str:
    """What the user is told of the one thing that can't be read."""
    try:
        _, [skipped] = read_what_can_be(*sources)
    except CorpusError as error:  # there was nothing else
        return str(error).removeprefix("Nothing could be read: ")
    return f"{skipped.where}: {skipped.reason}"


# --- which files -------------------------------------------------------------------------------


def test_files_come_in_the_same_order_whatever_the_order_of_their_creation(tmp_path: Path) -> None:
    names = ["z.txt", "b/1.txt", "b/a/0.txt", "a/2.txt", "a.txt", "B.txt", "b/10.txt"]
    for folder, created in ((tmp_path / "one", names), (tmp_path / "two", sorted(names))):
        for name in created:
            write_bytes(folder / name, name.encode())
        in_order = ("B.txt", "a.txt", "z.txt", "a/2.txt", "b/1.txt", "b/10.txt", "b/a/0.txt")
        assert find(folder) == ids_in(folder, *in_order)


def test_sources_are_read_in_the_order_given(tmp_path: Path) -> None:
    late, early = write_bytes(tmp_path / "z.txt", b"Z."), write_bytes(tmp_path / "a.txt", b"A.")
    assert [document.id for document in documents(late, early)] == ["z.txt", "a.txt"]


def test_hidden_files_and_folders_are_left_out_and_not_counted(tmp_path: Path) -> None:
    for name in ("seen.txt", ".hidden.txt", ".git/notes.txt", "sub/.DS_Store"):
        write_bytes(tmp_path / name, b"Text.")
    left_out = LeftOut()
    assert [file.name for file in find_files([tmp_path], left_out)] == ids_in(tmp_path, "seen.txt")
    assert left_out == LeftOut()


def test_files_of_other_types_are_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("a.txt", "b.PNG", "sub/c.png", "d.odt", "LICENSE"):
        write_bytes(tmp_path / name, b"Text.")
    left_out = LeftOut()
    assert [file.name for file in find_files([tmp_path], left_out)] == ids_in(tmp_path, "a.txt")
    assert left_out.counts == {".png files": 2, ".odt files": 1, "LICENSE files": 1}


def test_a_suffix_in_capitals_is_known(tmp_path: Path) -> None:
    write_records(tmp_path / "A.JSONL", {"id": "a", "text": "Text."})
    write_bytes(tmp_path / "B.TXT", b"Text.")
    assert [document.id for document in documents(tmp_path)] == ["a", *ids_in(tmp_path, "B.TXT")]


def test_an_empty_folder_is_refused_with_the_types_that_would_do(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert message.startswith(f"Nothing to index in {tmp_path}: ")
    for suffix in READERS:
        assert suffix in message


def test_a_folder_without_any_readable_file_is_refused(tmp_path: Path) -> None:
    write_bytes(tmp_path / "photo.png", b"PNG")
    assert f"Nothing to index in {tmp_path}" in refusal(tmp_path)


@pytest.mark.parametrize(("name", "found"), [("paper.odt", ".odt"), ("README", "no suffix"), ("a.tar.gz", ".gz")])
def test_a_file_of_an_unknown_type_is_refused_when_it_is_named(tmp_path: Path, name: str, found: str) -> None:
    path = write_bytes(tmp_path / name, b"Text.")
    assert refusal(path) == f"Can't read {path}: {found} isn't a known type ({', '.join(READERS)}, each also .gz)."


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    write_bytes(tmp_path / "there.txt", b"Text.")
    missing = tmp_path / "gone"
    assert f"No such file or folder: {missing}." in refusal(tmp_path / "there.txt", missing)


def test_documents_come_one_by_one_before_a_later_file_is_looked_at(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.jsonl", b'{"id": "a", "text": "Text."}\nbroken\n')
    write_bytes(tmp_path / "b.txt", b"")
    left_out = LeftOut()
    reading = read_corpus(find_files([tmp_path], left_out), left_out)
    assert next(reading).document.id == "a"
    assert left_out.skipped == []
    assert list(reading) == []
    assert [one.where for one in left_out.skipped] == [f"{tmp_path}/a.jsonl:2", f"{tmp_path}/b.txt"]


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_value_that_is_no_number_costs_its_document_alone(tmp_path: Path, number: str) -> None:
    line = '{"id": "%s", "text": "Text.", "dose": %s}\n'
    write_bytes(tmp_path / "a.jsonl", (line % ("a", number) + line % ("b", "5")).encode())
    left_out = LeftOut()
    assert [one.document.id for one in read_corpus(find_files([tmp_path], left_out), left_out)] == ["b"]
    assert "dose is" in left_out.skipped[0].reason


def test_a_bad_file_is_named_and_those_around_it_are_read(tmp_path: Path) -> None:
    for name, content in (("a.txt", b"A."), ("b.txt", b"caf\xe9"), ("c.txt", b"C.")):
        write_bytes(tmp_path / name, content)
    assert read_what_can_be(tmp_path) == (
        ids_in(tmp_path, "a.txt", "c.txt"),
        [Skipped(f"{tmp_path}/b.txt", "not valid UTF-8 (byte 4). Convert the file.")],
    )


def breaking(error: Exception) -> Any:
    """A reader that breaks at a file's end."""

    def read_broken(file: File, left_out: LeftOut) -> Any:
        yield from jsonl.read(file, left_out)
        raise error

    return read_broken


def test_a_file_that_a_reader_breaks_on_is_named_and_those_around_it_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "READERS", {**READERS, ".jsonl": breaking(KeyError("w:p"))})
    write_bytes(tmp_path / "a.txt", b"A.")
    broken = write_records(tmp_path / "b.jsonl", {"id": "b", "text": "B."})
    write_bytes(tmp_path / "c.txt", b"C.")
    a, c = ids_in(tmp_path, "a.txt", "c.txt")
    reason = "can't be read: KeyError: 'w:p'. What stands before it is read (1)."
    assert read_what_can_be(tmp_path) == ([a, "b", c], [Skipped(str(broken), reason)])


def test_memory_that_runs_out_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "READERS", {**READERS, ".jsonl": breaking(MemoryError())})
    write_records(tmp_path / "b.jsonl", {"id": "b", "text": "B."})
    with pytest.raises(MemoryError):
        read_what_can_be(tmp_path)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "a.txt", b"A.")
    locked = write_bytes(tmp_path / "b.txt", b"B.")
    opened = Path.open

    def refusing(path: Path, *args: Any, **options: Any) -> Any:
        if path == locked:  # the tests may run as root, who may read everything
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refusing)
    reason = "Permission denied. Mend its permissions, or leave it out."
    assert read_what_can_be(tmp_path) == (ids_in(tmp_path, "a.txt"), [Skipped(str(locked), reason)])


def test_where_it_may_not_look_a_file_has_no_size_and_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes(tmp_path / "a.txt", b"A cough.")
    hidden = write_bytes(tmp_path / "b.txt", b"A fever.")
    looked = Path.stat

    def refusing(path: Path, *, follow_symlinks: bool = True) -> Any:
        if path == hidden:
            raise PermissionError(13, "Permission denied", str(path))
        return looked(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refusing)
    assert File(hidden, "b.txt").size == 0
    reason = "Permission denied. Mend its permissions, or leave it out."
    assert read_what_can_be(tmp_path) == (ids_in(tmp_path, "a.txt"), [Skipped(str(hidden), reason)])


@pytest.mark.parametrize(("first", "second"), [("same", "same"), (7, "7")])
def test_an_id_that_stands_twice_is_skipped_and_both_places_are_named(
    tmp_path: Path, first: str | int, second: str | int
) -> None:
    one = write_records(tmp_path / "one.jsonl", {"id": "other", "text": "A."}, {"id": first, "text": "B."})
    two = write_records(tmp_path / "sub/two.jsonl", {"_id": second, "text": "C."}, {"id": "last", "text": "D."})
    reason = f"document id {second!r} stands already in {one}:2. Give it another."
    assert read_what_can_be(tmp_path) == (["other", str(first), "last"], [Skipped(f"{two}:1", reason)])


def test_files_of_one_name_given_one_by_one_name_both_places(tmp_path: Path) -> None:
    one, two = (write_bytes(tmp_path / folder / "note.txt", b"Text.") for folder in ("a", "b"))
    ids, [skipped] = read_what_can_be(one, two)
    assert ids == ["note.txt"]
    assert (skipped.where, str(one) in skipped.reason) == (str(two), True)


def test_a_corpus_of_which_nothing_can_be_read_names_the_first_reason(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.txt", b"")
    write_bytes(tmp_path / "b.txt", b"")
    assert refusal(tmp_path) == f"{tmp_path}/a.txt: the file is empty. Remove it. And 1 more."


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl"])
def test_gz_is_expanded_in_passing(tmp_path: Path, name: str) -> None:
    content = b'{"id": "a", "text": "Joints swell."}\n' if name == "a.jsonl" else b"Joints swell."
    for file_name in (name, f"{name}.GZ"):
        write_bytes(tmp_path / file_name, gzip.compress(content) if file_name != name else content)
    plain, expanded = (next(iter(READERS[file.suffix](file, LeftOut()))) for file in find_files([tmp_path], LeftOut()))
    assert (plain.document.title, plain.document.text) == (expanded.document.title, expanded.document.text)
    assert plain.size == expanded.size


def test_the_size_of_a_gz_is_that_of_its_content(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.txt.gz", gzip.compress(b"Joints swell. " * 100))
    assert File(path, path.name).size == 1400
    path.write_bytes(path.read_bytes()[:-4] + b"\xff\xff\xff\xff")  # it may say what it wants
    assert File(path, path.name).size == 100 * path.stat().st_size


@pytest.mark.parametrize(
    "content",
    # by name: the bytes hold the second they were made in, and each worker of the tests makes its own
    [
        pytest.param(b"no gzip", id="no gzip"),
        pytest.param(gzip.compress(b"Text." * 100)[:-9], id="cut off"),
        pytest.param(gzip.compress(b"Text.") + b"rest", id="followed by rest"),
    ],
)
def test_a_damaged_gz_is_named(tmp_path: Path, content: bytes) -> None:
    path = write_bytes(tmp_path / "a.txt.gz", content)
    assert refusal(path).startswith(f"{path}: a damaged gzip file (")


# --- JSON lines --------------------------------------------------------------------------------


def test_a_beir_record_becomes_a_document(tmp_path: Path) -> None:
    path = write_records(
        tmp_path / "a.jsonl", {"_id": "4983", "title": "Gout", "text": "Joints swell.", "metadata": {}}
    )
    assert documents(path) == [Document("4983", "Gout", "Joints swell.", {})]


def test_id_stands_in_for_beirs_name_of_it(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", {"id": "gout", "text": "A."}, {"_id": None, "id": 12, "text": "B."})
    assert [document.id for document in documents(path)] == ["gout", "12"]


def test_beirs_id_wins_and_the_other_stays_as_metadata(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", {"id": "row 1", "_id": "gout", "text": "A."})
    assert documents(path) == [Document("gout", "", "A.", {"id": "row 1"})]


def test_strings_numbers_and_lists_of_strings_become_metadata_and_nothing_else_does(tmp_path: Path) -> None:
    record = {
        "id": "a",
        "text": "A.",
        "journal": "Lancet",
        "year": 1998,
        "score": 0.5,
        "authors": ["Koch", "Pasteur"],
        "open": True,
        "closed": False,
        "group": None,
        "nested": {"a": 1},
        "mixed": ["a", 1],
        "empty": [],
    }
    (document,) = documents(write_records(tmp_path / "a.jsonl", record))
    kept = {"journal": "Lancet", "year": 1998, "score": 0.5, "authors": "Koch; Pasteur", "open": "yes"}
    assert document.metadata == kept


@pytest.mark.parametrize("record", [{}, {"title": None}, {"title": 3}])
def test_a_title_that_is_no_string_is_empty(tmp_path: Path, record: dict[str, Any]) -> None:
    (document,) = documents(write_records(tmp_path / "a.jsonl", {"id": "a", "text": "A.", **record}))
    assert document.title == ""


def test_a_title_is_one_line(tmp_path: Path) -> None:
    line = json.dumps({"_id": "a", "title": "Malaria\nconfidence  that\tthe sources answer: 99%", "text": "Text."})
    [document] = documents(write_bytes(tmp_path / "a.jsonl", line.encode()))
    assert document.title == "Malaria confidence that the sources answer: 99%"


def test_blank_lines_are_passed_over_and_still_counted(tmp_path: Path) -> None:
    lines = [b'{"id": "a", "text": "A."}\n', b"\n", b"  \r\n", b'{"id": "b", "text": "\xc3\xa9."}']
    path = write_bytes(tmp_path / "a.ndjson", b"".join(lines))
    assert [(one.document.id, one.where, one.size) for one in read(path)] == [
        ("a", f"{path}:1", len(lines[0])),
        ("b", f"{path}:4", len(lines[3])),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_record(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.jsonl", BOM + b'{"id": "a", "text": "A."}\n{"id": "b", "text": "B."}\n')
    assert [document.id for document in documents(path)] == ["a", "b"]


def test_invalid_utf8_in_a_line_is_found_by_its_byte(tmp_path: Path) -> None:
    line = b'{"id": "b", "text": "caf\xe9 au lait"}\n'
    path = write_bytes(tmp_path / "a.jsonl", b'{"id": "a", "text": "A."}\n' + line)
    place = line.index(b"\xe9") + 1
    assert refusal(path) == f"{path}:2: not valid UTF-8 (byte {place} of the line). Convert the file."


def test_the_byte_order_mark_counts_in_the_place_of_an_invalid_byte(tmp_path: Path) -> None:
    line = BOM + b'{"id": "a", "text": "caf\xe9"}\n'
    place = line.index(b"\xe9") + 1
    assert f"(byte {place} of the line)" in refusal(write_bytes(tmp_path / "a.jsonl", line))


@pytest.mark.parametrize("line", ["not json", '{"id": "a", "text": "cut', '{"id": 1} {"id": 2}', "[" * 100_000])
def test_a_line_that_is_no_json_is_refused_with_its_place(tmp_path: Path, line: str) -> None:
    path = write_bytes(tmp_path / "a.jsonl", b'{"id": "a", "text": "A."}\n' + line.encode() + b"\n")
    message = refusal(path)
    assert message.startswith(f"{path}:2: not valid JSON (")
    assert message.endswith("Each line must be one JSON object.")


@pytest.mark.parametrize(("line", "kind"), [('["a"]', "list"), ('"a"', "str"), ("3", "int"), ("null", "NoneType")])
def test_a_line_that_is_no_object_names_what_it_is(tmp_path: Path, line: str, kind: str) -> None:
    path = write_bytes(tmp_path / "a.jsonl", line.encode())
    assert refusal(path) == f"{path}:1: expected a JSON object, found {kind}."


@pytest.mark.parametrize("identity", [{}, {"_id": ""}, {"id": "  "}, {"id": None}, {"id": ["a"]}, {"_id": 1.5}])
def test_a_record_without_an_id_is_refused_with_its_place(tmp_path: Path, identity: dict[str, Any]) -> None:
    path = write_records(tmp_path / "a.jsonl", {"id": "a", "text": "A."}, {"text": "B.", **identity})
    assert refusal(path) == f"{path}:2: the record has no `_id` (or `id`). Each document needs one."


@pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": " \n"}, {"text": None}, {"text": ["A."]}])
def test_a_record_without_text_is_refused_with_its_id(tmp_path: Path, body: dict[str, Any]) -> None:
    path = write_records(tmp_path / "a.jsonl", {"id": "empty", **body})
    assert refusal(path) == f"{path}:1: document 'empty' has no `text`. Remove it or give it one."


@pytest.mark.parametrize("key", ["id", "title", "text", "note"])
def test_a_lone_surrogate_is_refused_where_it_is_read(tmp_path: Path, key: str) -> None:
    path = write_records(tmp_path / "a.jsonl", {"id": "a", "text": "A.", key: "half a pair: \ud83d"})
    assert f"{path}:1" in refusal(path)


def test_a_line_over_the_limit_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", {"id": "a", "text": "A."})
    with path.open("r+b") as file:
        file.truncate(1 << 30)
    with path.open("ab") as file:
        file.write(b'\n{"id": "b", "text": "B."}\n')
    tracemalloc.start()
    try:
        ids, skipped = read_what_can_be(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ids == ["a", "b"]
    assert skipped == [Skipped(f"{path}:2", "the line is longer than 16 MiB. Is this a JSONL file?")]
    assert peak < 3 * MAX_LINE


@pytest.mark.parametrize(("length", "read_well"), [(MAX_LINE, True), (MAX_LINE + 1, False)])
def test_the_longest_line_that_is_read(tmp_path: Path, length: int, read_well: bool) -> None:
    frame = b'{"id": "a", "text": "%s"}\n'
    path = write_bytes(tmp_path / "a.jsonl", frame % (b"x" * (length - len(frame) + 2)))
    assert path.stat().st_size == length
    if read_well:
        assert [len(document.text) for document in documents(path)] == [length - len(frame) + 2]
    else:
        assert "longer than 16 MiB" in refusal(path)


# --- text and Markdown -------------------------------------------------------------------------


def test_a_text_file_is_a_document_named_by_its_place_in_the_folder(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "hospital/wards/night notes.txt", b"Quiet.\r\nAll slept.")
    document = Document("hospital/wards/night notes.txt", "night notes", "Quiet.\r\nAll slept.")
    assert read(tmp_path / "hospital") == [Located(document, str(path), 18)]


@pytest.mark.parametrize(
    ("body", "title", "text"),
    [
        ("# Gout\n\nJoints swell.\n", "Gout", "# Gout\n\nJoints swell.\n"),
        ("Before.\n\n## Acute gout ##\nSwells.\n", "Acute gout", "Before.\n\n## Acute gout ##\nSwells.\n"),
        ("No heading. C# is no heading.\n", "note", "No heading. C# is no heading.\n"),
        ("---\ntitle: x\ntags: [a]\n---\n# Gout\nSwells.", "x", "# Gout\nSwells."),
        ("# Gout\r\n\r\nSwells.\r\n", "Gout", "# Gout\n\nSwells.\n"),
        ("\ufeff# Gout\nSwells.", "Gout", "# Gout\nSwells."),
        ("Rule below.\n\n---\nStays.\n---\n", "note", "Rule below.\n\n---\nStays.\n---\n"),
    ],
)
def test_the_first_heading_of_a_markdown_file_is_its_title(tmp_path: Path, body: str, title: str, text: str) -> None:
    write_bytes(tmp_path / "note.md", body.encode())
    assert documents(tmp_path) == [Document(f"{tmp_path.name}/note.md", title, text)]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.markdown"])
def test_a_binary_file_with_a_text_suffix_is_refused(tmp_path: Path, name: str) -> None:
    path = write_bytes(tmp_path / name, b"PK\x03\x04\x00\x00text")
    assert refusal(tmp_path) == f"{path}: a binary file with a text suffix. Remove it or rename it."


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_named(tmp_path: Path, encoding: str) -> None:
    path = write_bytes(tmp_path / "a.txt", "\ufeffGout is painful.".encode(encoding))
    assert refusal(tmp_path) == f"{path}: UTF-16, and UTF-8 is read. Convert the file."


def test_invalid_utf8_in_a_file_is_found_by_its_byte(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.txt", b"First line.\ncaf\xe9\n")
    assert refusal(path) == f"{path}: not valid UTF-8 (byte 16). Convert the file."


def test_the_byte_order_mark_of_a_file_counts_in_the_place_of_an_invalid_byte(tmp_path: Path) -> None:
    assert "(byte 7)" in refusal(write_bytes(tmp_path / "a.txt", BOM + b"caf\xe9\n"))


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert documents(write_bytes(tmp_path / "a.txt", BOM + b"Text.")) == [Document("a.txt", "a", "Text.")]


@pytest.mark.parametrize("content", [b"", b" \n\t\n", BOM])
@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_an_empty_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    path = write_bytes(tmp_path / name, content)
    assert refusal(tmp_path) == f"{path}: the file is empty. Remove it."


def test_a_markdown_file_of_nothing_but_front_matter_is_empty(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.md", b"---\ntitle: Gout\n---\n")
    assert refusal(tmp_path) == f"{path}: the file is empty. Remove it."


def test_a_text_file_over_the_limit_is_refused_without_being_read(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "dump.txt", b"Text.")
    with path.open("r+b") as file:
        file.truncate(MAX_FILE + 1)
    tracemalloc.start()
    try:
        message = refusal(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message == f"{path}: larger than 16 MiB. Split it, or turn it into JSONL."
    assert peak < MAX_FILE // 16


def test_a_heading_in_fenced_code_is_no_title(tmp_path: Path) -> None:
    path = tmp_path / "note.md"
    path.write_text("```python\n# not a heading\n```\n\n# Gout\n\nSwells.\n", encoding="utf-8")
    [located] = read_markdown(File(path, "note.md"), LeftOut())
    assert located.document.title == "Gout"


# --- what a folder's documents are called ------------------------------------------------------


def test_files_of_the_same_name_in_two_sources_are_two_documents(tmp_path: Path) -> None:
    one, two = (write_bytes(tmp_path / folder / "README.md", b"Text.") for folder in ("a", "b"))
    assert [document.id for document in documents(one.parent, two.parent)] == ["a/README.md", "b/README.md"]


def test_folders_that_are_read_one_after_the_other_replace_nothing_of_each_other(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_bytes(tmp_path / folder / "README.md", b"Text.")
    assert [[document.id for document in documents(tmp_path / folder)] for folder in ("a", "b")] == [
        ["a/README.md"],
        ["b/README.md"],
    ]


def test_a_document_is_called_the_same_however_many_sources_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all would be encoded again, and stand in the index twice."""
    for name in ("a/README.md", "a/sub/note.txt", "b/README.md"):
        write_bytes(tmp_path / name, b"Text.")
    alone = write_bytes(tmp_path / "alone.txt", b"Text.")
    monkeypatch.chdir(tmp_path / "a")
    apart = [find(source) for source in (tmp_path / "a", tmp_path / "b", alone)]
    assert apart == [["a/README.md", "a/sub/note.txt"], ["b/README.md"], ["alone.txt"]]
    assert find(tmp_path / "a", tmp_path / "b", alone) == [name for names in apart for name in names]
    assert find(Path()) == find(Path("sub/..")) == find(Path("../a/")) == apart[0]
