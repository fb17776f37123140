"""An answer under way: every piece is handed out once, whoever waits for it and however it ends."""

import threading

import pytest

from medtune.inference.serving.answering import Answering, EngineError, Piece, QueueFullError
from medtune.records import Answer


def test_what_came_since_the_last_call_is_one_piece():
    answering = Answering(5)
    assert answering.take() is None
    answering.put("a", 1)
    answering.put("", 2)
    answering.put("b", 3)
    assert answering.take() == Piece("ab", 3)
    assert answering.take() is None
    answering.put("c", 4, "length")
    assert answering.take() == Piece("c", 4, "length")
    assert answering.take() is None, "the end is handed out once"


def test_the_end_is_a_piece_even_without_text():
    answering = Answering(5)
    answering.put("", 0, "stop")
    assert list(answering) == [Piece("", 0, "stop")]


def test_whoever_iterates_waits_for_the_engine():
    answering, pieces = Answering(5), []
    reading = threading.Thread(target=lambda: pieces.extend(answering), daemon=True)
    reading.start()
    for number, reason in ((1, None), (2, None), (3, "stop")):
        answering.put("x", number, reason)
    reading.join(10)
    assert not reading.is_alive()
    assert "".join(piece.text for piece in pieces) == "xxx"
    assert [piece.finish_reason for piece in pieces][-1] == "stop"


def test_the_result_is_all_that_is_still_to_come():
    answering = Answering(5)
    answering.put(" a", 1)
    answering.put(" b", 2, "length")
    assert answering.result() == Answer(" a b", 2, "length")


def test_a_failure_is_told_to_whoever_waits():
    answering = Answering(5)
    answering.put("a", 1)
    answering.fail(EngineError("memory does not suffice"))
    for wait in (answering.take, answering.result, lambda: next(iter(answering))):
        with pytest.raises(EngineError, match="memory does not suffice"):
            wait()


def test_a_cancelled_answer_ends_what_waits_for_it():
    answering = Answering(5)
    assert not answering.is_cancelled
    waiting = threading.Thread(target=lambda: list(answering), daemon=True)
    waiting.start()
    answering.cancel()
    waiting.join(10)
    assert not waiting.is_alive()
    assert answering.is_cancelled
    with pytest.raises(EngineError, match="the answer was cancelled"):
        answering.result()


def test_news_is_told_when_it_can_be_taken():
    taken = []
    answering = Answering(5, lambda: taken.append(answering.take()))
    answering.put("a", 1)
    answering.put("", 1, "stop")
    assert taken == [Piece("a", 1), Piece("", 1, "stop")]
    told = []
    failing = Answering(5, lambda: told.append("news"))
    failing.fail(EngineError("it has ended"))
    assert told == ["news"]


def test_a_full_queue_says_when_to_come_again():
    error = QueueFullError(256, 7)
    assert error.seconds == 7
    assert str(error) == "256 requests wait already; try again in 7 s"
