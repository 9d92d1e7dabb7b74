"""Where an instance stands, as one sentence; and a traceback of the fault handler, read."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.deploy.model.stack import Profile, Stack, StackFrame, TaskStack, ThreadStack, read_traceback

FOLDER = "/versions/abc"
MINE = StackFrame(
    file=f"{FOLDER}/app.py", line=42, function="ask", text="return requests.get(URL)", call="requests.get", own=True
)
THEIRS = StackFrame(file="/site/requests/api.py", line=7, function="get", text="return request('get')", call="request")


def stack(*frames: StackFrame, idle: bool = False, tasks: tuple[TaskStack, ...] = ()) -> Stack:
    return Stack(threads=(ThreadStack(name="MainThread", main=True, idle=idle, frames=frames),), tasks=tasks)


def waiting(name: str) -> TaskStack:
    return TaskStack(name=name, frames=(THEIRS, MINE))


def test_a_thread_stands_in_the_scripts_own_innermost_line():
    assert stack(THEIRS, MINE).where() == "app.py:42 requests.get"


def test_a_thread_with_no_line_of_the_script_stands_in_its_innermost():
    assert stack(THEIRS).where() == "api.py:7 request"


def test_a_line_that_calls_nothing_is_told_as_it_is():
    assert msgspec.structs.replace(MINE, call="", text="while True:").place() == "app.py:42 while True"


def test_a_loop_that_waits_stands_where_its_tasks_do():
    tasks = tuple(waiting(f"Task-{number}") for number in range(1, 6))
    place = "app.py:42 requests.get"
    assert stack(THEIRS, idle=True, tasks=tasks).where() == (
        f"{place} (Task-1), {place} (Task-2), {place} (Task-3) and 2 more"
    )


def test_a_loop_that_is_blocked_stands_where_it_is_blocked():
    assert stack(THEIRS, MINE, tasks=(waiting("another"),)).where() == "app.py:42 requests.get"


def test_nothing_is_nowhere():
    assert Stack().where() == stack().where() == ""


TRACEBACK = f"""\
Thread 0x00007f0000000001 (most recent call first):
  File "/usr/lib/python3.11/json/encoder.py", line 200 in encode
  File "/layer/bema/runner/inspection.py", line 70 in _answer_all
  File "/usr/lib/python3.11/threading.py", line 975 in run

Thread 0x00007f0000000002 (most recent call first):
  File "{FOLDER}/app.py", line 9 in pull
  File "/usr/lib/python3.11/threading.py", line 975 in run

Current thread 0x00007f0000000003 (most recent call first):
  File "/usr/lib/python3.11/re.py", line 1 in match
  File "{FOLDER}/app.py", line 42 in <module>
  File "/layer/bema/runner/script.py", line 92 in run
"""


def test_a_traceback_has_the_main_thread_first_and_nothing_of_the_runner():
    told = read_traceback(TRACEBACK, f"{FOLDER}/app.py")
    assert told.held
    assert [(thread.main, [frame.line for frame in thread.frames]) for thread in told.threads] == [
        (True, [1, 42]),
        (False, [9, 975]),
    ]
    assert told.where() == "app.py:42 <module>"


@given(st.text())
def test_any_text_is_read_and_told_in_a_few_words(text):
    assert len(read_traceback(text, f"{FOLDER}/app.py").where()) <= 80
    assert len(read_traceback(f"Thread 0x1:\n{text}", f"{FOLDER}/app.py").where()) <= 80


def test_a_profile_holds_the_frames_that_it_names():
    assert Profile(frames=(("app.py", "ask", 1),), stacks=((5, (0,)),)).stacks == ((5, (0,)),)
    with pytest.raises(ValueError, match="not there"):
        Profile(stacks=((5, (0,)),))
