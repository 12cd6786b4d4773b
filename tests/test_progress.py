"""Progress of long work: lines where stderr is no terminal, a bar on one."""

from __future__ import annotations

import io
import re
import sys

import pytest
import tqdm.std

from lam_model.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is set: `clock[0] += seconds`."""
    now = [0.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    return now


def test_short_work_is_silent(clock, capsys):
    for _ in progress(range(29), desc="texts"):
        clock[0] += 1
    with progress(total=2, unit="graph") as bar:
        bar.set_description("the first")
        clock[0] += 29
        bar.update()
    assert capsys.readouterr() == ("", "")


def test_long_work_writes_a_line_every_half_minute(clock, capsys):
    for _ in progress(range(100), desc="texts", unit="text"):
        clock[0] += 1
    lines = capsys.readouterr().err.splitlines(keepends=True)
    assert [line.split("[")[0] for line in lines] == [f"texts:  {n}% {n}/100 " for n in (30, 60, 90)]
    assert re.fullmatch(r"texts:  30% 30/100 \[00:30<01:10, .*text/s\]\n", lines[0])


def test_what_is_said_of_each_step_makes_no_lines_of_its_own(clock, capsys):
    with progress(total=10, unit="graph") as bar:
        for number in range(10):
            bar.set_description(f"graph {number}")
            clock[0] += 10
            bar.set_postfix(number=number)
            tqdm.std.tqdm.write("a message", file=sys.stdout)
            bar.update()
    out, err = capsys.readouterr()
    assert out == 10 * "a message\n"
    assert [line.split(":")[0] for line in err.splitlines()] == ["graph 2", "graph 5", "graph 8"]
    assert "\r" not in err


def test_work_of_unknown_length_says_what_is_done(clock, capsys):
    with progress(unit=" texts") as bar:
        clock[0] += 40
        bar.update(1024)
    assert capsys.readouterr().err == "1024 texts [00:40, 25.60 texts/s]\n"


def test_a_terminal_has_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress(range(3), desc="texts", ncols=60)) == [0, 1, 2]
    assert re.search(r"\rtexts: 100%\|#+\| 3/3 ", terminal.getvalue())
