"""Files of questions and of their answers: what can't be read is told by its line, and an interrupted run loses nothing."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from beside import answer as answered
from conftest import ROOT

from rag.batch import AnswerFile, Item, Outcome, read
from rag.batch.files import PART
from rag.errors import StorageError, UsageError

EXPECTED = 'expected like {"id": "q1", "question": "What causes malaria?"}'


def written(folder: Path, *lines: object, name: str = "questions.jsonl") -> Path:
    """A file of these lines: strings as they are, the others as JSON."""
    path = folder / name
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read(path)
    said = str(caught.value)
    assert "\n" not in said
    return said


# --- questions -------------------------------------------------------------------------------------


def test_a_line_holds_a_question_and_perhaps_an_id_and_a_condition(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"id": "gout", "question": "  What causes gout?\n"},
        "",
        {"question": "Was löst Malaria aus?", "where": "year>=2020 and not retracted"},
        "   ",
        {"id": " last ", "question": "Why?", "where": None},
    )
    assert read(path) == [
        Item(id="gout", question="What causes gout?"),
        Item(id="3", question="Was löst Malaria aus?", where="year>=2020 and not retracted"),
        Item(id="last", question="Why?"),
    ]
    assert [item.asked for item in read(path)] == [
        ("What causes gout?", None),
        ("Was löst Malaria aus?", "year>=2020 and not retracted"),
        ("Why?", None),
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "A.JSONL"])
def test_json_lines_go_by_several_endings(tmp_path: Path, name: str) -> None:
    assert read(written(tmp_path, {"question": "Why?"}, name=name)) == [Item(id="1", question="Why?")]


@pytest.mark.parametrize("name", ["a.txt", "a", "a.md"])
def test_of_another_file_each_line_that_holds_anything_is_a_question(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, "What causes gout?", "", "  Why?\t", " \t", '{"question": "So?"}', name=name)
    assert read(path) == [
        Item(id="1", question="What causes gout?"),
        Item(id="3", question="Why?"),
        Item(id="5", question='{"question": "So?"}'),
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
def test_a_byte_order_mark_and_the_ends_of_lines_are_no_part_of_a_question(
    tmp_path: Path, name: str, ending: bytes
) -> None:
    line = '{"question": "Wieso für?"}' if name.endswith("l") else "Wieso für?"
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + line.encode() + ending)
    assert read(tmp_path / name) == [Item(id="1", question="Wieso für?")]


def test_a_question_set_is_such_a_file_too() -> None:
    items = read(ROOT / "eval" / "dev_60.jsonl")
    assert len(items) == 60
    assert all(item.where is None and item.question.endswith("?") for item in items)


def test_an_empty_or_overlong_question_is_read_and_fails_when_it_is_asked(tmp_path: Path) -> None:
    path = written(tmp_path, {"question": ""}, {"question": " \n"}, {"question": "why " * 10_000})
    assert [len(item.question) for item in read(path)] == [0, 0, 39_999]


# --- questions that can't be read ------------------------------------------------------------------

GOOD = {"id": "q1", "question": "What causes gout?"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no JSON (Expecting property name"),
        ("What causes gout?", "no JSON (Expecting value"),
        ('{"question": "a"} {"question": "b"}', "no JSON (Extra data"),
        ("[" + json.dumps(GOOD), "no JSON"),
        ([GOOD], "no JSON object"),
        ("17", "no JSON object"),
        ('"What causes gout?"', "no JSON object"),
        ("null", "no JSON object"),
        ({"id": "q2"}, "question: Field required"),
        ({"Question": "Why?"}, "question: Field required"),
        ({"question": None}, "question: Input should be a valid string"),
        ({"question": ["Why?"]}, "question: Input should be a valid string"),
        ({"question": "\ud800"}, "question: Input should be a valid string"),
        ({"id": 17, "question": "Why?"}, "id: Input should be a valid string"),
        ({"id": None, "question": "Why?"}, "id: Input should be a valid string"),
        ({"id": " \t", "question": "Why?"}, "id: String should have at least 1 character"),
        ({"question": "Why?", "where": 2020}, "where: Input should be a valid string"),
    ],
)
def test_the_first_line_that_is_none_is_named_with_what_is_expected(tmp_path: Path, line: object, said: str) -> None:
    path = written(tmp_path, GOOD, "", line, "neither is this")
    message = refusal(path)
    assert message.startswith(f"{path}:3: {said}")
    assert message.endswith(f"; {EXPECTED}.")


def test_what_is_found_in_the_place_of_a_question_is_named(tmp_path: Path) -> None:
    """As every message names the value that was found (`rag.errors`)."""
    assert "31415" in refusal(written(tmp_path, {"question": 31415}))


def test_a_line_of_brackets_alone_is_no_question_either(tmp_path: Path) -> None:
    path = written(tmp_path, "[" * 200_000)
    assert refusal(path).startswith(f"{path}:1: no JSON")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("year >", "The condition 'year >' has the end at character 7, where a value after > is expected"),
        ("", "The condition '' has the end at character 1, where a name"),
        ("(year", 'where ")" is expected'),
    ],
)
def test_a_condition_that_is_none_is_named_with_its_line(tmp_path: Path, where: str, said: str) -> None:
    path = written(tmp_path, GOOD, {"question": "Why?", "where": where})
    message = refusal(path)
    assert message.startswith(f"{path}:2: The condition")
    assert said in message


def test_an_id_that_stands_there_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD, {"question": "Why?"}, {"id": " q1 ", "question": "So?"})
    assert refusal(path) == f"{path}:3: 'q1' is already used on line 1. Give it another id."


def test_an_id_that_is_the_number_of_another_line_stands_there_twice(tmp_path: Path) -> None:
    path = written(tmp_path, {"question": "Why?"}, {"id": "1", "question": "So?"})
    assert refusal(path) == f"{path}:2: '1' is already used on line 1. Give it another id."


@pytest.mark.parametrize("lines", [(), ("",), ("  ", "\t", "")])
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_a_file_without_a_question(tmp_path: Path, lines: Sequence[str], name: str) -> None:
    path = written(tmp_path, *lines, name=name)
    assert refusal(path) == f"{path} holds no question."


def test_a_file_that_is_not_there_is_a_folder_or_is_no_text(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.txt").startswith(f"Can't read {tmp_path / 'none.txt'}: ")
    assert "No such file" in refusal(tmp_path / "none.txt")
    assert "Is a directory" in refusal(tmp_path)
    (tmp_path / "latin.txt").write_bytes("Was löst Malaria aus?".encode("latin-1"))
    assert "can't decode byte 0xf6" in refusal(tmp_path / "latin.txt")


# --- answers ---------------------------------------------------------------------------------------

ITEMS = [Item(id=f"q{number}", question=f"Question {number}?") for number in range(1, 5)]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "answers.jsonl"


def part(output: Path) -> Path:
    return output.with_name(output.name + PART)


def came(item: Item, text: str | None = None) -> Outcome:
    return Outcome(None, answered(item.question, 1.0, text if text is not None else f"So {item.id} [1]."))


FAILED = Outcome(None, error="The engine is busy.")


def opened(output: Path, items: Sequence[Item] = ITEMS, settings: str = "s1", overwrite: bool = False) -> AnswerFile:
    return AnswerFile(output, items, settings, overwrite)


def whole(output: Path, items: Sequence[Item] = ITEMS, settings: str = "s1") -> None:
    """A run from its beginning to its end."""
    file = opened(output, items, settings)
    for item in file.left:
        file.add(item, came(item))
    file.finish()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(items: Sequence[Item]) -> list[str]:
    return [item.id for item in items]


def test_answers_stand_in_the_order_of_the_questions_and_the_part_is_gone_at_the_end(output: Path) -> None:
    file = opened(output)
    for item in (ITEMS[2], ITEMS[0], ITEMS[3], ITEMS[1]):
        file.add(item, came(item))
    assert not output.exists()
    assert [row["id"] for row in rows(part(output))] == ["q3", "q1", "q4", "q2"]
    assert (file.left, file.failed) == ([], [])
    file.finish()
    assert [row["id"] for row in rows(output)] == ["q1", "q2", "q3", "q4"]
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_a_line_is_the_whole_answer_with_its_id_and_what_it_depends_on(output: Path) -> None:
    item = Item(id="ä", question="Was löst Malaria aus?")
    file = opened(output, [item])
    file.add(item, came(item, "Der Erreger\u2028\x85 „Plasmodium“ [1]."))
    file.finish()
    [row] = rows_of_lines(output)
    assert (row["id"], row["question"], row["settings"]) == ("ä", item.question, "s1")
    assert row["answer"] == "Der Erreger\u2028\x85 „Plasmodium“ [1]."
    assert row["timings"]["total"] == 1.0
    assert "error" not in row
    assert "löst" in output.read_text(encoding="utf-8")


def rows_of_lines(path: Path) -> list[dict[str, Any]]:
    """Where an answer may hold what Python takes for the end of a line."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def test_a_question_that_failed_stands_there_with_its_error_and_is_asked_again(output: Path) -> None:
    file = opened(output)
    for item in ITEMS:
        file.add(item, FAILED if item.id in ("q2", "q3") else came(item))
    assert ids(file.left) == ["q2", "q3"]
    assert file.failed == [("q2", "The engine is busy."), ("q3", "The engine is busy.")]
    file.finish()
    failed = rows(output)[1]
    assert (failed["id"], failed["question"], failed["settings"]) == ("q2", "Question 2?", "s1")
    assert (failed["error"], "answer" in failed) == ("The engine is busy.", False)

    again = opened(output)
    assert (ids(again.left), again.failed) == (["q2", "q3"], [])
    again.add(ITEMS[1], came(ITEMS[1]))
    again.add(ITEMS[2], FAILED)
    assert again.failed == [("q3", "The engine is busy.")]
    again.finish()
    assert [("error" in row) for row in rows(output)] == [False, False, True, False]
    assert not part(output).exists()


# --- interrupted -----------------------------------------------------------------------------------


def killed(output: Path, lines: int, cut: int = 0) -> bytes:
    """What a run leaves that was killed after so many answers, the last of which lost its end."""
    file = opened(output)
    for item in ITEMS[:lines]:
        file.add(item, came(item))
    content = part(output).read_bytes()
    part(output).write_bytes(content[: len(content) - cut])
    return content


@pytest.mark.parametrize(("cut", "left"), [(0, ["q3", "q4"]), (1, ["q2", "q3", "q4"]), (60, ["q2", "q3", "q4"])])
def test_a_run_goes_on_after_a_kill_also_in_the_middle_of_a_line(output: Path, cut: int, left: list[str]) -> None:
    before = killed(output, 2, cut)
    file = opened(output)
    assert ids(file.left) == left
    assert part(output).read_bytes() == b"".join(before.splitlines(keepends=True)[: 4 - len(left)])
    for item in file.left:
        file.add(item, came(item, "Anew [1]."))
    file.finish()
    assert [row["answer"] for row in rows(output)] == [f"So {name} [1]." for name in ids(ITEMS[: 4 - len(left)])] + [
        "Anew [1]."
    ] * len(left)
    assert not part(output).exists()


def test_killed_again_and_again_each_answer_is_written_once(output: Path) -> None:
    for item in ITEMS:
        file = opened(output)
        assert file.left[0] == item
        file.add(item, came(item))
        with part(output).open("ab") as torn:
            torn.write(b'{"id": "q4", "quest')
    opened(output).finish()
    assert ids_of(output) == ["q1", "q2", "q3", "q4"]


def ids_of(output: Path) -> list[str]:
    return [row["id"] for row in rows(output)]


def test_killed_between_the_whole_file_and_the_end_of_the_part_nothing_is_asked_again(output: Path) -> None:
    file = opened(output)
    for item in ITEMS:
        file.add(item, came(item))
    kept = part(output).read_bytes()
    file.finish()
    part(output).write_bytes(kept)
    again = opened(output)
    assert again.left == []
    again.finish()
    assert ids_of(output) == ["q1", "q2", "q3", "q4"]
    assert not part(output).exists()


def test_a_whole_file_is_not_asked_again_and_more_questions_go_on_after_fewer(output: Path) -> None:
    whole(output, ITEMS[:3])
    before = output.read_bytes()
    file = opened(output, ITEMS[:3])
    assert file.left == []
    file.finish()
    assert output.read_bytes() == before
    assert ids(opened(output, [ITEMS[3], *ITEMS[:3]]).left) == ["q4"]
    whole(output, [ITEMS[3], *ITEMS[:3]])
    assert ids_of(output) == ["q4", "q1", "q2", "q3"]
    assert output.read_bytes().endswith(before)


# --- what is there is something else ---------------------------------------------------------------


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("items", "settings"),
    [
        (ITEMS, "s2"),
        (ITEMS[1:], "s1"),
        ([ITEMS[0].model_copy(update={"question": "Another?"}), *ITEMS[1:]], "s1"),
        ([item.model_copy(update={"id": f"x{item.id}"}) for item in ITEMS], "s1"),
    ],
    ids=["other settings", "fewer questions", "another question", "other ids"],
)
def test_answers_to_other_questions_or_by_other_settings_are_refused_and_stay(
    output: Path, items: list[Item], settings: str, finished: bool
) -> None:
    if finished:
        whole(output)
    else:
        killed(output, 2)
    file = output if finished else part(output)
    before = file.read_bytes()
    with pytest.raises(UsageError) as caught:
        opened(output, items, settings)
    assert str(caught.value) == (
        f"{file}:1 holds something else than an answer to one of these questions by these settings and this index. "
        "Name another file with --output, or give --overwrite."
    )
    assert file.read_bytes() == before
    assert [path.name for path in output.parent.iterdir()] == [file.name]


def test_an_answer_under_another_condition_is_another_one_s(output: Path) -> None:
    """Else the answer from all documents would be told as the one from those that meet it."""
    whole(output)
    stricter = [ITEMS[0].model_copy(update={"where": "year>=2020"}), *ITEMS[1:]]
    with pytest.raises(UsageError, match=r"answers\.jsonl:1 holds something else"):
        opened(output, stricter)


@pytest.mark.parametrize(
    "content",
    [
        b"notes\n",
        b"[]\n",
        b"{}\n",
        b"\n",
        b"\xff\xfe\n",
        b'{"id": ["q1"], "question": "Question 1?", "settings": "s1"}\n',
        b'{"id": "q1", "question": "Question 1?"}\n',
        b"notes",
        b'{"figures": [1, 2, 3]}',
        b"\x89PNG\x00\x01",
    ],
)
def test_a_file_of_something_else_is_refused_and_stays(output: Path, content: bytes) -> None:
    output.parent.mkdir()
    output.write_bytes(content)
    with pytest.raises(UsageError, match=r"answers\.jsonl:1 holds something else"):
        opened(output)
    assert output.read_bytes() == content
    assert not part(output).exists()


def test_the_line_that_is_something_else_is_named(output: Path) -> None:
    whole(output)
    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join([*lines[:2], "{\n", *lines[2:]]))
    with pytest.raises(UsageError, match=r"answers\.jsonl:3 holds something else"):
        opened(output)


@pytest.mark.parametrize("content", [b"notes\n", b"notes", None])
def test_overwriting_begins_anew_and_keeps_what_was_there_until_the_end(output: Path, content: bytes | None) -> None:
    whole(output, settings="s0")
    if content is not None:
        output.write_bytes(content)
    before = output.read_bytes()
    part(output).write_bytes(b"torn")
    file = opened(output, overwrite=True)
    assert ids(file.left) == ids(ITEMS)
    for item in ITEMS:
        file.add(item, came(item))
    assert output.read_bytes() == before
    file.finish()
    assert {row["settings"] for row in rows(output)} == {"s1"}
    assert not part(output).exists()


def test_overwriting_that_was_interrupted_can_be_gone_on_with(output: Path) -> None:
    """Without beginning anew once more: that the old file may go has been said."""
    whole(output, settings="s0")
    file = opened(output, overwrite=True)
    file.add(ITEMS[0], FAILED)
    assert ids(opened(output).left) == ["q1", "q2", "q3", "q4"], "also where nothing came of it yet"
    file.add(ITEMS[0], came(ITEMS[0]))
    assert ids(opened(output).left) == ["q2", "q3", "q4"]


@pytest.mark.parametrize("question", ["What causes gout?\x1f", "What causes\x85 gout?\u2028"])
def test_white_space_of_every_kind_stands_in_no_run_s_way(output: Path, question: str) -> None:
    """Python and pydantic don't mean the same by it."""
    items = [Item(id="q1", question=question)]
    whole(output, items)
    assert opened(output, items).left == []


@pytest.mark.parametrize("outcome", [Outcome(None, error="half: \ud83d"), came(ITEMS[0], "So \ud83d [1].")])
def test_half_a_character_is_kept_as_it_came(output: Path, outcome: Outcome) -> None:
    file = opened(output)
    file.add(ITEMS[0], outcome)
    file.finish()
    assert "\ud83d" in next(iter(rows(output)[0][key] for key in ("error", "answer") if key in rows(output)[0]))


def test_what_failed_is_told_in_the_order_of_the_questions(output: Path) -> None:
    file = opened(output)
    for item in reversed(ITEMS[:2]):
        file.add(item, FAILED)
    assert [name for name, _ in file.failed] == ["q1", "q2"]


# --- a disk that is full or closed -----------------------------------------------------------------


def no_room() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """There is room for half of what is written next to a file that was opened so."""
    really = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: Any) -> int:
            self.file.write(data[: len(data) // 2])
            raise no_room()

    def open_full(path: Path, opened_so: str = "r", *rest: Any, **more: Any) -> Any:
        opened = really(path, opened_so, *rest, **more)
        return Full(opened) if opened_so == mode else opened

    monkeypatch.setattr(Path, "open", open_full)


def test_on_a_full_disk_what_was_answered_before_stays(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(output)
    for item in ITEMS[:2]:
        file.add(item, came(item))
    before = part(output).read_bytes()
    full_disk(monkeypatch, "ab")
    with pytest.raises(StorageError, match="No room on the disk while writing"):
        file.add(ITEMS[2], came(ITEMS[2]))
    monkeypatch.undo()
    assert part(output).read_bytes().startswith(before)
    assert ids(file.left) == ["q3", "q4"]
    whole(output)
    assert ids_of(output) == ["q1", "q2", "q3", "q4"]


def test_a_disk_that_is_full_when_a_whole_file_is_written_keeps_what_was_there(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole(output, ITEMS[:2])
    file = opened(output)
    for item in file.left:
        file.add(item, came(item))
    before = {path: path.read_bytes() for path in output.parent.iterdir()}
    assert set(before) == {output, part(output)}
    full_disk(monkeypatch, "wb")
    with pytest.raises(StorageError, match="No room on the disk while writing"):
        opened(output)
    with pytest.raises(StorageError, match="No room on the disk while writing"):
        file.finish()
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in output.parent.iterdir()} == before


def into_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "answers.jsonl"


def into_proc(folder: Path) -> Path:
    del folder
    return Path("/proc/nowhere/answers.jsonl")


def a_folder(folder: Path) -> Path:
    (folder / "results").mkdir()
    return folder / "results"


def this_folder(folder: Path) -> Path:
    del folder
    return Path()


@pytest.mark.parametrize("place", [into_a_file, into_proc, a_folder, this_folder])
def test_a_file_that_cannot_be_written_is_one_clear_line_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Callable[[Path], Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((StorageError, UsageError)) as caught:
        opened(place(tmp_path))
    assert "\n" not in str(caught.value)
