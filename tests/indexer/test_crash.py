"""Killed writers: what was acknowledged is there, whole and once, and the next run ends where one without a kill does.

`make crash` does the same a thousand times, at every step and with strace.
"""

from __future__ import annotations

from pathlib import Path

from tests.indexer.crash import plan, run_trials, set_scene
from tests.indexer.crash_operations import OPERATIONS


def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    scene = set_scene(tmp_path, list(OPERATIONS))
    outcomes = list(run_trials(scene, plan(scene, times=20, points=20, calls=False, seed=0)))
    assert [outcome for outcome in outcomes if outcome.wrong] == []
    assert len(outcomes) == 40
    # Otherwise nothing was tried: a step is reached but for one at the end, a moment may come too late.
    assert sum(outcome.was_killed for outcome in outcomes) >= 25
    assert {outcome.trial.kind for outcome in outcomes if outcome.was_killed} == set(OPERATIONS)
