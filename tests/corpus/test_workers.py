import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from lam_model.corpus.workers import in_order


def double(number):
    if number == 13:
        raise ValueError("13 is refused")
    return 2 * number


def kill_itself(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order_and_items_are_taken_as_needed(workers):
    taken = []

    def items():
        for number in range(9):
            taken.append(number)
            yield number

    results = in_order(double, items(), workers)
    assert next(results) == 0
    assert len(taken) <= 2 * max(workers, 1)
    assert list(results) == [2, 4, 6, 8, 10, 12, 14, 16]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_work_raises_is_raised(workers):
    with pytest.raises(ValueError, match="13 is refused"):
        list(in_order(double, [1, 13, 2, 3, 4, 5], workers))


def test_a_worker_that_is_killed_is_said():
    with pytest.raises(ChildProcessError, match="a worker was killed"):
        list(in_order(kill_itself, range(9), 2))


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "slow.py").write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from lam_model.corpus.workers import in_order

            def work(folder):
                open(os.path.join(folder, str(os.getpid())), "w").close()
                time.sleep(600)

            if __name__ == "__main__":
                list(in_order(work, [sys.argv[1]] * 2, 2))
            """
        )
    )
    pids = tmp_path / "pids"
    pids.mkdir()
    parent = subprocess.Popen([sys.executable, tmp_path / "slow.py", pids])
    wait_until(lambda: len(os.listdir(pids)) == 2)
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(alive(int(pid)) for pid in os.listdir(pids)))


def wait_until(holds):
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("not within a minute")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
