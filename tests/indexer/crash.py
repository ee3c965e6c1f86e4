"""Kills processes that work on a gallery, with SIGKILL, and looks at what they leave: `make crash`.

A trial copies a gallery, has a worker do an operation on it, kills the worker at some moment, and has a process that
has not seen the gallery before check it, do the operation again and compare the end with that of a run without a kill.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.indexer.crash_operations import OPERATIONS
from tests.indexer.crash_process import Worker, WorkerError, killed_at_call, why_no_strace, working

# Trials side by side.
_LANES = 2
# At how many system calls of each thread strace kills.
_CALLS_KILLED = 12
# After a sync nothing has changed that had not before.
_SYNCS = ("fsync", "mkdir")

How = Literal["time", "step", "call"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One kill.

    Args:
        number: By which it can be repeated.
        kind: The operation.
        how: Whether `at` is a share of the operation's `time`, one of our steps, or a system `call` counted by strace.
        at: 0..1, (step, before or after), or the call's number in its thread.
    """

    number: int
    kind: str
    how: How
    at: Any


@dataclass(slots=True)
class Outcome:
    """What came of a trial.

    Args:
        trial: Which.
        was_killed: Whether that was before the operation's end.
        commits: How many it had acknowledged.
        wrong: What is wrong, one sentence each.
    """

    trial: Trial
    was_killed: bool
    commits: int
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scene:
    """Photos, and for each operation the gallery that it starts from and what it comes to without a kill.

    Args:
        folder: Of all.
        seconds: How long each operation takes.
        steps: Its steps by name.
        expected: What its end is compared with.
    """

    folder: Path
    seconds: dict[str, float]
    steps: dict[str, list[str]]
    expected: dict[str, dict[str, Any]]


def set_scene(folder: Path, kinds: Sequence[str]) -> Scene:
    """Prepares the galleries and does each operation once, to its end."""
    scene = Scene(folder, {}, {}, {})
    with working() as worker:
        worker.ask(do="draw", scene=str(folder))
        for kind in kinds:
            order = {"scene": str(folder), "kind": kind}
            before = worker.ask(do="prepare", folder=f"{kind}-start", **order)
            _copy_start(scene, kind, f"{kind}-whole")
            whole = {**order, "folder": f"{kind}-whole"}
            done = worker.ask(do="run", point=None, **whole)
            scene.seconds[kind], scene.steps[kind] = done["seconds"], done["steps"]
            scene.expected[kind] = {"before": before, **worker.ask(do="describe", **whole)}
    return scene


def plan(scene: Scene, *, times: int, points: int | None, calls: bool, seed: int) -> list[Trial]:
    """The trials, spread evenly over operations, times and steps.

    Args:
        scene: With the operations.
        times: How many kills at random moments.
        points: How many kills before or after a step; None for all.
        calls: Whether strace kills as well.
        seed: Of the random moments.
    """
    kinds = list(scene.steps)
    rng = random.Random(seed)
    rounds = -(-times // len(kinds))
    # One in each part of the operation's time, a little past its end as well: no machine is always equally fast.
    moments = [(kind, "time", 1.1 * (turn + rng.random()) / rounds) for turn in range(rounds) for kind in kinds]
    rng.shuffle(moments)
    steps = [
        (kind, "step", (number, side))
        for kind in kinds
        for number, name in enumerate(scene.steps[kind])
        for side in (("before",) if name in _SYNCS else ("before", "after"))
    ]
    chosen = steps if points is None else [steps[int((n + 0.5) * len(steps) / points)] for n in range(points)]
    system = [(kind, "call", number) for kind in kinds for number in range(1, _CALLS_KILLED + 1)] if calls else []
    every: list[tuple[Any, ...]] = [*moments[:times], *chosen, *system]
    return [Trial(number, *one) for number, one in enumerate(every)]


def run_trials(scene: Scene, trials: Sequence[Trial]) -> Iterator[Outcome]:
    """The outcomes, as they come; the folder of a trial without fault is deleted."""
    waiting, outcomes = list(reversed(trials)), list[Outcome]()
    news = threading.Condition()

    def lane() -> None:
        # The process that checked one trial is the one that is killed in the next: half of the starts are spared.
        victim, fresh = Worker(), Worker()
        try:
            while True:
                with news:
                    if not waiting:
                        return
                    trial = waiting.pop()
                outcome = _run_trial(scene, trial, victim, fresh)
                victim.close()
                victim, fresh = fresh, Worker()
                with news:
                    outcomes.append(outcome)
                    news.notify()
        finally:
            victim.close()
            fresh.close()

    lanes = [threading.Thread(target=lane, daemon=True) for _ in range(_LANES)]
    for thread in lanes:
        thread.start()
    for _ in trials:
        with news:
            while not outcomes:
                if not any(thread.is_alive() for thread in lanes):
                    raise RuntimeError("The trials came to an end too early.")
                news.wait(1)
            outcome = outcomes.pop(0)
        yield outcome
    for thread in lanes:
        thread.join()


def _run_trial(scene: Scene, trial: Trial, victim: Worker, fresh: Worker) -> Outcome:
    name = f"trial-{trial.number}"
    _copy_start(scene, trial.kind, name)
    order = {"scene": str(scene.folder), "kind": trial.kind, "folder": name}
    try:
        said, words = _kill(scene, trial, victim, order)
        outcome = Outcome(trial, words is None, len(said))
    except WorkerError as error:
        return Outcome(trial, False, 0, [f"the operation failed before the kill: {error}"])
    try:
        expected = scene.expected[trial.kind]
        outcome.wrong = fresh.ask(do="check", expected=expected, said=said, **order)
    except WorkerError as error:
        outcome.wrong = [str(error)]
    if not outcome.wrong:
        shutil.rmtree(scene.folder / name)
    return outcome


def _kill(scene: Scene, trial: Trial, victim: Worker, order: dict[str, Any]) -> tuple[list[dict[str, Any]], Any]:
    """Has an operation done until it is killed; what was acknowledged, and the answer where it ended before."""
    if trial.how == "step":
        victim.order(do="run", point=trial.at, **order)
        return victim.answers()
    victim.ask(do="wait", scene=order["scene"])
    if trial.how == "time":
        victim.order(do="run", point=None, **order)
        time.sleep(trial.at * scene.seconds[trial.kind])
        victim.kill()
        return victim.answers()
    with killed_at_call(victim.pid, trial.at):
        victim.order(do="run", point=None, **order)
        return victim.answers()


def _copy_start(scene: Scene, kind: str, name: str) -> None:
    start = scene.folder / f"{kind}-start"
    if start.is_dir():
        shutil.copytree(start, scene.folder / name)


def _print_table(outcomes: Sequence[Outcome]) -> None:
    """A line an operation and way to kill."""
    print(
        f"\n{'operation':<10} {'killed by':<10} {'trials':>7} {'killed':>7} {'between commits':>16} {'violations':>11}"
    )
    for kind, how in dict.fromkeys((outcome.trial.kind, outcome.trial.how) for outcome in outcomes):
        these = [outcome for outcome in outcomes if (outcome.trial.kind, outcome.trial.how) == (kind, how)]
        killed = [outcome for outcome in these if outcome.was_killed]
        between = sum(outcome.commits > 0 for outcome in killed)
        wrong = sum(bool(outcome.wrong) for outcome in these)
        print(f"{kind:<10} {how:<10} {len(these):>7,} {len(killed):>7,} {between:>16,} {wrong:>11,}")


def main() -> int:
    """Runs the trials that the command line asks for; 1 where a gallery came to harm."""
    parser = argparse.ArgumentParser(prog="python -m tests.indexer.crash", description="Kill writers of a gallery.")
    parser.add_argument("--trials", type=int, default=1000, help="kills at random moments")
    parser.add_argument("--points", type=int, help="kills at steps, spread over all; all where it is not given")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--kind", action="append", choices=list(OPERATIONS), help="only this operation")
    parser.add_argument("--only", type=int, help="only the trial of this number")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="modiste-crash-"))
    scene = set_scene(folder, given.kind or list(OPERATIONS))
    no_strace = why_no_strace()
    if no_strace:
        print(f"No kills at system calls: {no_strace}.")
    trials = plan(scene, times=given.trials, points=given.points, calls=no_strace is None, seed=given.seed)
    trials = [trial for trial in trials if given.only in (None, trial.number)]
    outcomes = []
    try:
        for outcome in run_trials(scene, trials):
            outcomes.append(outcome)
            trial = outcome.trial
            for sentence in outcome.wrong:
                print(f"Trial {trial.number} ({trial.kind}, {trial.how} {trial.at}): {sentence}", file=sys.stderr)
            if outcome.wrong:
                again = " ".join(word for word in sys.argv[1:] if word)
                print(
                    f"  in {folder}/trial-{trial.number}; again: {parser.prog} {again} --only {trial.number}",
                    file=sys.stderr,
                )
            if len(outcomes) % 100 == 0:
                print(f"{len(outcomes):,} of {len(trials):,} trials", file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped; this is what the trials so far came to.", file=sys.stderr)
    _print_table(outcomes)
    violations = sum(bool(outcome.wrong) for outcome in outcomes)
    print(f"{len(outcomes):,} trials, {violations:,} violations.")
    if not violations:
        shutil.rmtree(folder)
    return int(violations > 0)


if __name__ == "__main__":
    sys.exit(main())
