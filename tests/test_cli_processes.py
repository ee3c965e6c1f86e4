"""Processes that are started together: how they are waited for, and that none is left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from cli import processes
from cli.processes import ProcessDiedError, Processes, Running

GREET = "import time; print('at http://here', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + GREET
ADDRESS = r"at (http\S+)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_says_how_it_ended_and_is_forgotten():
    with Processes() as some:
        assert some.run(python("raise SystemExit(7)")) == 7
        # Its number may be another's by now, so nothing is sent to it any more.
        assert some._children == []


def test_a_quiet_command_says_only_what_goes_wrong(capfd):
    with Processes() as some:
        some.run(python("import sys; print('answer'); print('trouble', file=sys.stderr)"), is_quiet=True)
    assert capfd.readouterr() == ("", "trouble\n")


def test_the_address_is_read_from_the_greeting():
    with Processes() as some:
        one = some.start("One", python("print('hello', flush=True); " + GREET), ADDRESS)
        assert some.address_of(one) == "http://here"
    assert one.child.returncode == -signal.SIGTERM


def test_one_that_dies_before_its_greeting_is_told_with_its_last_words():
    with Processes() as some, pytest.raises(ProcessDiedError) as died:
        some.address_of(some.start("The page", python("print('no port'); raise SystemExit(3)"), ADDRESS))
    assert str(died.value) == "The page has ended with status 3. It said last:\n  no port"


def test_only_the_last_lines_are_kept():
    with Processes() as some, pytest.raises(ProcessDiedError) as died:
        some.address_of(some.start("One", python("for n in range(100): print(n)"), ADDRESS))
    assert died.value.lines == tuple(map(str, range(88, 100)))


def test_one_that_dies_ends_the_wait_and_the_other_one_too():
    with Processes() as some:
        one, two = (some.start(name, python(GREET), ADDRESS) for name in ("One", "Two"))
        some.address_of(two)
        two.child.kill()
        with pytest.raises(ProcessDiedError, match=r"Two has ended with signal 9. It said last:\n  at http://here"):
            some.wait()
    assert one.child.returncode == -signal.SIGTERM


def test_one_that_dies_is_noticed_while_another_is_awaited():
    with Processes() as some:
        some.start("One", python(""), ADDRESS)
        two = some.start("Two", python("import time; time.sleep(60)"), ADDRESS)
        with pytest.raises(ProcessDiedError, match=r"One has ended with status 0. It said nothing."):
            some.address_of(two)


def test_one_that_does_not_end_is_killed_with_all_that_it_has_started(monkeypatch):
    monkeypatch.setattr(processes, "_GRACE_S", 0.2)
    child = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]).pid, flush=True); "
    with Processes() as some:
        one = some.start("One", python(child + STUBBORN), ADDRESS)
        some.address_of(one)
        grandchild = int(one._lines[0])
        assert alive(grandchild)
    assert one.child.returncode == -signal.SIGKILL
    until = time.monotonic() + 10
    while alive(grandchild) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(grandchild)


def wait_for(code: str, seen: list[Running], *numbers: int) -> None:
    """Starts a process, sends itself signals, the second one 0.2 s later, and waits."""
    with Processes() as some:
        seen.append(some.start("One", python(code), ADDRESS))
        some.address_of(seen[0])
        for number in numbers[1:]:
            threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
        os.kill(os.getpid(), numbers[0])
        some.wait()


def apart(check, *arguments) -> None:
    """Runs a check in a new process: that of all tests has threads of many libraries, which no signal should meet."""
    child = get_context("spawn").Process(target=check, args=arguments)
    child.start()
    child.join(60)
    assert child.exitcode == 0


def check_signal(number: int, status: int | None) -> None:
    before, seen = signal.getsignal(number), []
    with pytest.raises(KeyboardInterrupt if status is None else SystemExit) as end:
        wait_for(GREET, seen, number)
    assert status is None or end.value.code == status
    assert seen[0].child.returncode == -signal.SIGTERM
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, None), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_all_and_then_counts_as_before(number, status):
    apart(check_signal, number, status)


def check_second_signal() -> None:
    processes._GRACE_S = 0.5
    seen: list[Running] = []
    with pytest.raises(KeyboardInterrupt):
        wait_for(STUBBORN, seen, signal.SIGINT, signal.SIGINT)
    assert seen[0].child.returncode == -signal.SIGKILL


def test_a_second_signal_does_not_break_the_end_off():
    apart(check_second_signal)


def check_signal_at_a_start() -> None:
    started = []
    real = subprocess.Popen

    def start(*arguments, **options):
        started.append(real(*arguments, **options))
        os.kill(os.getpid(), signal.SIGINT)
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", start)
        with pytest.raises(KeyboardInterrupt), Processes() as some:
            some.run(python(GREET), is_quiet=True)
    assert started[0].returncode == -signal.SIGTERM


def test_a_signal_at_the_moment_of_a_start_leaves_no_child_behind():
    apart(check_signal_at_a_start)
