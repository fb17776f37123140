"""Batches and their results on disk: whatever the file ends with, what is whole is used and nothing else."""

import json
import os
import resource

import pytest

from medtune.errors import DiskError, RunDirError
from medtune.records import Answer, AnswerLoss
from medtune.run_dir import partial_results
from medtune.run_dir.partial_results import BatchWork, PartialResults

BATCHES = [[2, 0], [3, 1], [4]]
ORIGIN = {"base": "b at 1", "adapter": None}


def answers(rows):
    return [Answer(f"answer {row}\u2028\n", row + 1, "stop") for row in rows]


def begun(tmp_path):
    partial = PartialResults(tmp_path / "baseline" / "partial.jsonl", ORIGIN)
    assert partial.plan({"cap": (1, 2)}) is None
    partial.begin({"batches": BATCHES})
    return partial


def opened(tmp_path):
    partial = PartialResults(tmp_path / "baseline" / "partial.jsonl", ORIGIN)
    assert partial.plan({"cap": (1, 2)}) == {"batches": BATCHES}
    return partial


def test_what_is_finished_is_there_again(tmp_path):
    partial = begun(tmp_path)
    work = partial.work("answers", BATCHES, Answer)
    work.finish(work.to_do.popleft(), answers([2, 0]))
    losses = partial.work("losses", [[0, 1, 2, 3, 4]], AnswerLoss)
    losses.finish(losses.to_do.popleft(), [AnswerLoss(0.1 + row, row) for row in range(5)])
    partial = opened(tmp_path)
    work = partial.work("answers", BATCHES, Answer)
    assert work.done == {2: answers([2])[0], 0: answers([0])[0]}
    assert list(work.to_do) == BATCHES[1:]
    assert partial.work("losses", [[0, 1, 2, 3, 4]], AnswerLoss).in_order() == losses.in_order()
    work.finish(work.to_do.popleft(), answers([3, 1]))
    work.finish(work.to_do.popleft(), answers([4]))
    assert opened(tmp_path).work("answers", BATCHES, Answer).in_order() == answers(range(5))


def test_a_plan_made_after_memory_ran_out_is_kept(tmp_path):
    work = begun(tmp_path).work("answers", BATCHES, Answer)
    work.finish(work.to_do.popleft(), answers([2, 0]))
    work.replan([[3], [1], [4]])
    work.finish(work.to_do.popleft(), answers([3]))
    again = opened(tmp_path).work("answers", BATCHES, Answer)
    assert again.planned == [[3], [1], [4]]
    assert list(again.to_do) == [[1], [4]]
    assert again.times_out_of_memory == 1
    assert set(again.done) == {0, 2, 3}


def test_every_time_that_memory_ran_out_is_counted_once(tmp_path):
    work = begun(tmp_path).work("answers", BATCHES, Answer)
    for times, batches in enumerate([[[2], [0], [3], [1], [4]], [[0], [2], [3], [1], [4]]], start=1):
        work.replan(batches)
        assert work.times_out_of_memory == times
        assert opened(tmp_path).work("answers", BATCHES, Answer).times_out_of_memory == times
    work.finish(work.to_do.popleft(), answers([0]))
    assert work.times_out_of_memory == 2


def test_cut_off_anywhere_whole_lines_count_and_the_work_goes_on(tmp_path):
    work = begun(tmp_path).work("answers", BATCHES, Answer)
    for rows in BATCHES:
        work.finish(rows, answers(rows))
    file = tmp_path / "baseline" / "partial.jsonl"
    content = file.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == 4
    for size in range(ends[0], len(content) + 1):
        file.write_bytes(content[:size])
        again = opened(tmp_path).work("answers", BATCHES, Answer)
        whole = sum(end <= size for end in ends) - 1
        assert list(again.to_do) == BATCHES[whole:]
        while again.to_do:
            rows = again.to_do.popleft()
            again.finish(rows, answers(rows))
        assert file.read_bytes() == content


@pytest.mark.parametrize("damage", [b"\0" * 40, b"null\n", b"\xff\xfe{}\n", b'{"of": "answers", "rows": [3, 1], "res'])
def test_lines_from_the_first_damaged_one_on_are_passed_over(tmp_path, damage):
    work = begun(tmp_path).work("answers", BATCHES, Answer)
    file = tmp_path / "baseline" / "partial.jsonl"
    work.finish(BATCHES[0], answers([2, 0]))
    whole = file.read_bytes()
    work.finish(BATCHES[1], answers([3, 1]))
    file.write_bytes(whole + damage + b"\n" + file.read_bytes()[len(whole) :])
    assert list(opened(tmp_path).work("answers", BATCHES, Answer).to_do) == BATCHES[1:]
    assert file.read_bytes() == whole


def test_results_of_something_else_are_thrown_away_and_the_user_told(tmp_path, capfd):
    partial = begun(tmp_path)
    partial.work("answers", BATCHES, Answer).finish([2, 0], answers([2, 0]))
    other = PartialResults(partial.file, {"base": "b at 2", "adapter": None})
    assert other.plan({"cap": 12}) is None
    assert capfd.readouterr().err == (
        f"{partial.file}: begun with another base and cap, thrown away; all rows are computed again\n"
    )
    other.begin({})
    assert not other.work("answers", BATCHES, Answer).done
    assert len(partial.file.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "entry",
    [
        {"rows": [0], "results": []},
        {"rows": [0], "results": [[1]]},
        {"rows": [0], "results": [["a", "many", "stop"]]},
        {"rows": [99], "results": [["a", 1, "stop"]]},
        {"rows": 1},
        {"batches": [[]]},
        {"batches": []},
        {"batches": [[0, 0]]},
        {"batches": 3},
    ],
)
def test_whole_lines_that_make_no_sense_are_refused(tmp_path, entry):
    file = begun(tmp_path).file
    with file.open("a") as lines:
        lines.write(json.dumps({"of": "answers", **entry}) + "\n")
    with pytest.raises(RunDirError, match=r"partial.jsonl: damaged; delete it to compute its rows again"):
        opened(tmp_path).work("answers", BATCHES, Answer)


@pytest.mark.parametrize("line", ['{"origin": []}', '{"origin": 3}', '{"a": ' + "[" * 100_000, "[" * 100_000])
def test_a_first_line_of_something_else_is_no_partial_result(tmp_path, line):
    partial = begun(tmp_path)
    partial.file.write_text(f"{line}\n")
    assert PartialResults(partial.file, {"base": "b"}).plan({"cap": 1}) is None


def test_lines_reach_the_disk_at_a_bounded_rate(tmp_path, monkeypatch):
    flushed, clock = [], [100.0]
    partial = begun(tmp_path)
    monkeypatch.setattr(os, "fsync", flushed.append)
    monkeypatch.setattr(partial_results.time, "monotonic", lambda: clock[0])
    work, counts = partial.work("answers", BATCHES, Answer), []
    for seconds in (0, 1, 3.9, 0.2, 4, 6):
        clock[0] += seconds
        work.finish([2, 0], answers([2, 0]))
        counts.append(len(flushed))
    assert counts == [1, 1, 1, 2, 2, 3]


def test_without_a_file_work_is_in_memory():
    work = BatchWork([[1], [0]], Answer)
    while work.to_do:
        rows = work.to_do.popleft()
        work.finish(rows, answers(rows))
    assert work.in_order() == answers([0, 1])


def test_a_line_for_which_there_is_no_room_is_an_error_and_not_a_torn_line_with_others_behind_it(tmp_path):
    partial = begun(tmp_path)
    work = partial.work("answers", BATCHES, Answer)
    work.finish(BATCHES[0], answers(BATCHES[0]))
    file = tmp_path / "baseline" / "partial.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(DiskError, match=r"partial\.jsonl: larger than a file may be"):
            work.finish(BATCHES[1], answers(BATCHES[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    work = opened(tmp_path).work("answers", BATCHES, Answer)
    assert list(work.to_do) == BATCHES[1:]
    for rows in BATCHES[1:]:
        work.finish(rows, answers(rows))
    assert opened(tmp_path).work("answers", BATCHES, Answer).in_order() == answers(range(5))
