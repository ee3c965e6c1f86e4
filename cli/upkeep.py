"""Commands that keep a gallery up: migrate, rollback, verify, repair, compact."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import GalleryOption, JsonOption, PoolingOption, PrecisionOption, RuntimeOption, WaitOption
from cli.output import figure, print_json, print_table, yes
from cli.progress import show_progress, stopping

if TYPE_CHECKING:
    from indexer.comparison import TargetComparison
    from indexer.migration import Migration


def migrate(
    gallery: GalleryOption,
    encoder: Annotated[str, typer.Option(help="Name (see `modiste encoders`) or folder.", show_default=False)],
    pooling: PoolingOption = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even if neighbours are worse, cannot be judged, or photos are gone.")
    ] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Give up an unfinished migration to another.")] = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Change a gallery's encoder, while it is in use, if its neighbours are no worse."""
    from indexer.encoders import prepare_encoder
    from indexer.migration import MigrationOptions
    from indexer.migration import migrate as change

    lazy = prepare_encoder(encoder, pooling=pooling, runtime=runtime, precision=precision)
    with stopping() as is_stopped, show_progress() as progress:
        done = change(gallery, lazy, MigrationOptions(force, discard, wait, progress, is_stopped))
    _report_change(done, gallery, as_json)


def rollback(
    gallery: GalleryOption,
    force: Annotated[
        bool, typer.Option("--force", help="Leave out what only the encoder before could encode, if it is gone.")
    ] = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Give a gallery the encoder back that it had before `modiste migrate`."""
    from indexer.encoders import load_encoder_of
    from indexer.migration import MigrationOptions
    from indexer.migration import rollback as undo

    with stopping() as is_stopped, show_progress() as progress:
        options = MigrationOptions(force=force, wait_s=wait, progress=progress, is_stopped=is_stopped)
        done = undo(gallery, load_encoder_of, options)
    _report_change(done, gallery, as_json)


def verify(gallery: GalleryOption, as_json: JsonOption = False) -> None:
    """Say whether a gallery is what was written, file by file and row by row; changes nothing."""
    from indexer.verification import verify as examine

    report = examine(gallery)
    if as_json:
        print_json({"gallery": str(gallery), "whole": report.is_whole, **asdict(report)})
    else:
        for finding in report.findings:
            print(f"{'damage' if finding.is_damage else 'note'}: {finding.place}: {finding.sentence}")
        age = "" if report.oldest_version_s is None else f", the oldest {_age(report.oldest_version_s)} old"
        tail = "" if not report.unindexed_rows else f", {report.unindexed_rows} rows not in the FAISS index"
        print(
            f"{report.rows} rows and {report.files} files compared, {report.versions} versions{age}{tail}, "
            f"{report.failures} failures to try again."
        )
        what = "The gallery is whole." if report.is_whole else f"Run `modiste repair --gallery {gallery}`."
        print(what)
    if not report.is_whole:
        raise typer.Exit(1)


def repair(gallery: GalleryOption, wait: WaitOption = 0.0, as_json: JsonOption = False) -> None:
    """Mend what is damaged in a gallery, and say what was lost; a whole one stays as it is."""
    from indexer.repair import repair as mend

    report = mend(gallery, wait_s=wait)
    if as_json:
        return print_json(asdict(report))
    for sentence in [*report.done, *report.undone]:
        print(sentence)
    if report.lost:
        more = f" and {len(report.lost) - 20} more, which quarantine/ lists" if len(report.lost) > 20 else ""
        print(f"Lost: {', '.join(report.lost[:20])}{more}.")
    if not report.done:
        return print("Nothing to do.")
    return print(f"The gallery holds {report.items} items, as version {report.version}.")


def compact(
    gallery: GalleryOption,
    keep_hours: Annotated[float, typer.Option(help="Hours for which a version stays readable, 1 or more.")] = 1.0,
    forget_previous: Annotated[
        bool, typer.Option("--forget-previous", help="Delete what `modiste rollback` would bring back.")
    ] = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Merge a gallery's files, drop its old versions and bring its FAISS index up to date."""
    from indexer.compaction import compact as merge

    done = merge(gallery, keep_hours=keep_hours, forget_previous=forget_previous, wait_s=wait)
    if as_json:
        return print_json(asdict(done))
    print(
        f"{done.items} items; versions: {done.versions_before} before, {done.versions_after} now; on disk: "
        f"{done.bytes_before / 2**20:.1f} MiB before, {done.bytes_after / 2**20:.1f} MiB now; {done.variant} search."
    )
    if done.versions_after > 1:
        print("Versions that were replaced within the last hours are kept, for who is reading them: --keep-hours.")
    return None


def _report_change(done: Migration, gallery: Path, as_json: bool) -> None:
    """Prints what a change of encoder did, and ends with the status that says so."""
    if as_json:
        print_json(asdict(done))
    elif done.comparison is not None:
        found = done.comparison
        overlap = figure(
            found.neighbour_overlap_at_10, found.neighbour_overlap_at_10_low, found.neighbour_overlap_at_10_high
        )
        print(f"{found.queries} queries; of ten neighbours {overlap[0]} are the same ({overlap[1]}).")
        print_table(
            ["same", "queries", "hit_rate_at_1 before", "after", "difference", "95 % interval", "decides"],
            [[name, one.queries, *_hit_rates(one), yes(one.decides)] for name, one in found.by_target.items()],
        )
    if done.interrupted:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        raise typer.Exit(130)
    if done.refusal is not None:
        print(f"modiste: {done.refusal}", file=sys.stderr)
        raise typer.Exit(1)
    if as_json:
        return
    if done.lost:
        print(f"{done.lost} items were left out; `modiste index` takes them in again where their photos are there.")
    print(
        f"The gallery's {done.items} items are encoded by {done.new_encoder} now ({done.encoded} photos encoded, "
        f"{done.seconds:.1f} s); `modiste rollback --gallery {gallery}` goes back to {done.old_encoder}."
    )


def _hit_rates(one: TargetComparison) -> list[str]:
    """The old hit rate, the new one, their difference and its interval."""
    before = figure(one.hit_rate_at_1_old, 0, 0)[0]
    after = figure(one.hit_rate_at_1_new, 0, 0)[0]
    return [before, after, *figure(one.difference, one.difference_low, one.difference_high)]


def _age(seconds: float) -> str:
    """A span of time in the largest unit that it fills."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
