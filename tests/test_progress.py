"""What a log without a terminal says of long work, with a clock that the test winds."""

import threading

from cptlab.progress import LINE_SECONDS, ProgressLines, progress_bar, repeated


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_line_says_how_much_is_done_and_what_is_left():
    clock = Clock()
    lines = ProgressLines("sampling", 900, "programs", 300, clock)
    assert lines.line() == "sampling: 300 of 900 programs, 0:00:00 taken, time left not known yet"
    clock.now += 90
    lines.advance(100, "task 7")
    # 100 programs in 90 s, so the 500 that are missing take 450 s; the 300 that were there cost nothing
    assert lines.line() == "sampling: 400 of 900 programs (task 7), 0:01:30 taken, 0:07:30 left"
    lines.advance(500)
    assert lines.line() == "sampling: 900 of 900 programs, 0:01:30 taken, 0:00:00 left"


def test_work_that_cannot_be_counted():
    clock = Clock()
    lines = ProgressLines("Loading llama", None, "", 0, clock)
    clock.now += 3725
    assert lines.line() == "Loading llama: at work for 1:02:05"


def test_a_line_at_least_every_minute_while_nothing_advances():
    """Ten minutes of the clock, in which the work itself says nothing."""
    clock, said, over = Clock(), [], threading.Event()

    def wait(_ended, seconds):
        clock.now += seconds
        if clock.now < 1600:
            return False
        over.set()
        return True

    with repeated(lambda: said.append(clock.now), wait):
        over.wait()
    moments = [1000.0, *said, clock.now]
    assert max(after - before for before, after in zip(moments, moments[1:])) <= 60
    assert LINE_SECONDS <= 60 and len(said) >= 9


def test_the_lines_end_with_the_work():
    running = threading.active_count()
    with repeated(lambda: None):
        assert threading.active_count() == running + 1
    assert threading.active_count() == running


def test_without_a_terminal_the_end_is_one_line(capsys):
    with progress_bar("judging", 3, "programs", done=1) as advance:
        advance(1)
        advance(1, "the last")
    assert capsys.readouterr().err == "judging: 3 programs\n"
