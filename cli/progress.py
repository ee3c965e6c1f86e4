"""Long commands: they say how far they are, and stop when asked to."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

    from finetune.outcome import Progress


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Ctrl-C (or SIGTERM) asks to stop after the photos under way; a second one stops at once."""
    asked = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            # At once, whatever is held: a gallery stands a kill (docs/crash.md). The bar has hidden the cursor.
            sys.stderr.write("\x1b[?25h" if sys.stderr.isatty() else "")
            os._exit(130)
        asked = True
        print("Stopping after the photos under way; press Ctrl-C again to stop at once.", file=sys.stderr)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def show_progress(verb: str = "encoded") -> Iterator[Callable[[int, int | None, int], None]]:
    """Rows done, rate and time left on stderr: a bar on a terminal, a line every ten seconds elsewhere."""
    if not sys.stderr.isatty():
        yield log_progress(verb)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]:.0f} photos/s " + verb)
    columns = (BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(verb, total=None, rate=0.0)
        start = time.monotonic()

        def report(done: int, total: int | None, encoded: int) -> None:
            bar.update(task, completed=done, total=total, rate=encoded / max(1e-3, time.monotonic() - start))

        yield report


def log_progress(verb: str = "encoded") -> Callable[[int, int | None, int], None]:
    """Rows done, rate and time left as a line on stderr every ten seconds, from now on."""
    start = last = time.monotonic()

    def report(done: int, total: int | None, encoded: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 10:
            return
        last = now
        left = "" if total is None else f" of {total}, {(now - start) * (total - done) / done:.0f} s left"
        print(f"{done}{left}, {encoded / (now - start):.0f} photos/s {verb}", file=sys.stderr, flush=True)

    return report


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM, which service managers send, stops as Ctrl-C does: by KeyboardInterrupt."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def show_training() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """How far training is, rate and time left, on stderr, and a way to say a sentence beside it.

    A bar on a terminal, a line every ten seconds elsewhere.
    """
    if not sys.stderr.isatty():
        yield _log_training(), lambda text: print(text, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), console=console) as bar:
        task = bar.add_task("reading", total=None, said="")

        def report(now: Progress) -> None:
            place = f"epoch {now.epoch} of {now.epochs}"
            bar.update(task, description=place, completed=now.step, total=now.steps, said=_said(now))

        yield report, lambda text: console.print(text, markup=False, highlight=False)


def _log_training() -> Callable[[Progress], None]:
    last = time.monotonic()

    def report(now: Progress) -> None:
        nonlocal last
        if time.monotonic() - last < 10:
            return
        last = time.monotonic()
        place = f"epoch {now.epoch} of {now.epochs}, step {now.step} of {now.steps}"
        print(f"{place}: {_said(now)}", file=sys.stderr, flush=True)

    return report


def _said(now: Progress) -> str:
    left = f"{now.eta_s:.0f} s" if now.eta_s < 120 else f"{now.eta_s / 60:.0f} min"
    return f"loss {now.loss:.3f}, accuracy {now.accuracy:.3f}, {now.photos_per_second:.0f} photos/s, {left} left"
