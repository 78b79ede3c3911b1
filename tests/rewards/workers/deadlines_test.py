"""The pool under threads and forks, deadlines, and that no jax is loaded."""

import multiprocessing
import subprocess
import sys
import threading
import time

from score_jax.rewards.answers.grade import grade_answer
from score_jax.rewards.workers import deadlines, pool

EQUAL = (r"\sqrt{8}", r"2\sqrt{2}")
UNEQUAL = (r"\sqrt{8}", r"3\sqrt{2}")
HANGING = (r"\sqrt{8}", r"\sin(" * 19 + "x" + ")" * 19)


def test_reasons_keep_the_order_of_the_questions():
    assert deadlines.decide([EQUAL, UNEQUAL] * 10) == ["equal", "unequal"] * 10


def test_a_hanging_question_times_out_and_the_next_is_answered():
    deadlines.decide([EQUAL])
    began = time.monotonic()
    assert deadlines.decide([HANGING], 0.5) == ["timeout"]
    assert time.monotonic() - began < 1.5
    assert deadlines.decide([EQUAL]) == ["equal"]


def test_many_threads_share_the_workers():
    reasons: dict[int, str] = {}

    def ask(n: int) -> None:
        gold, answer = rf"\sqrt{{{n}}}+\sqrt{{8}}", rf"2\sqrt{{2}}+{n}^{{1/2}}"
        reasons[n] = grade_answer(rf"\boxed{{{answer}}}", gold).reason

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(2, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(reasons.values()) == {"equal"}
    assert len(reasons) == 12


def test_a_pool_started_by_a_thread_outlives_the_thread():
    pool.close()
    thread = threading.Thread(target=deadlines.decide, args=([EQUAL],))
    thread.start()
    thread.join()
    spawner = pool.shared()._spawner
    time.sleep(0.2)
    assert deadlines.decide([EQUAL]) == ["equal"]
    assert pool.shared()._spawner is spawner


def test_a_forked_child_grades_with_processes_of_its_own():
    ours = pool.shared()._spawner.pid
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_decide_in_child, args=(queue,))
    child.start()
    theirs, reasons = queue.get()
    child.join()
    assert reasons == ["equal"]
    assert theirs != ours
    assert deadlines.decide([EQUAL]) == ["equal"]


def _decide_in_child(queue) -> None:
    reasons = deadlines.decide([EQUAL])
    queue.put((pool.shared()._spawner.pid, reasons))
    pool.close()  # multiprocessing children skip atexit


def test_grading_loads_no_jax():
    program = (
        "import sys; import score_jax.rewards.grader, score_jax.rewards.answers.algebra as s\n"
        "s.warm_up()\n"
        "print([name for name in ('jax', 'flax', 'tensorflow', 'torch') if name in sys.modules])\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"
