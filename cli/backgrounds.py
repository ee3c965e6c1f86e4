"""Commands that take the background away: mask."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import FontOption, FormatOption, JsonOption, MapOption
from cli.output import print_json
from cli.progress import show_progress, stopping

if TYPE_CHECKING:
    from data.masking import Masker, Tally

# Photos that failed, as many as are named.
_NAMED = 5


def mask(
    catalog: Annotated[Path, typer.Argument(help="Folder or table of photos.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.", show_default=False)],
    method: Annotated[str, typer.Option(help="grabcut, which needs no weights, or network.")] = "grabcut",
    network: Annotated[
        str | None,
        typer.Option(help="Segmentation network: a name on the hub, or a folder saved by transformers."),
    ] = None,
    keep: Annotated[str | None, typer.Option(help="What a network keeps: clothes (the default) or person.")] = None,
    fill: Annotated[str, typer.Option(help="What the background becomes: black or white.")] = "black",
    min_ratio: Annotated[
        float, typer.Option(min=0, max=1, help="A photo with a smaller share in its mask is left as it is.")
    ] = 0.005,
    limit: Annotated[int | None, typer.Option(min=1, help="Deal with at most this many rows.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="PNG of examples. Default: beside the folder, OUT-examples.png.")
    ] = None,
    font: FontOption = None,
    catalog_format: FormatOption = None,
    mapping: MapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a catalog again without backgrounds, in its own format, to train with and without them."""
    from data.background import FILLS
    from data.masked import draw_examples, write_masked
    from data.masking import MaskOptions, Stopped
    from data.readers import open_catalog, parse_mapping

    if fill not in FILLS:
        raise typer.BadParameter(f"--fill is {' or '.join(FILLS)}; got {fill}.")
    columns = None if mapping is None else parse_mapping(mapping)
    opened = open_catalog(catalog, format=catalog_format, mapping=columns)
    masker, made = _masker(method, network, keep)
    made = {"catalog": str(opened.root), "format": opened.format, **made, "fill": fill, "min_ratio": min_ratio}
    started = time.monotonic()
    with stopping() as is_stopped, show_progress("masked") as progress:
        options = MaskOptions(masker, fill, min_ratio, limit, progress=progress, is_stopped=is_stopped)
        try:
            tally = write_masked(opened, out, options, mapping=columns, made=made)
        except Stopped:
            print(f"Stopped; nothing was written to {out}.", file=sys.stderr)
            raise typer.Exit(130) from None
    seconds = time.monotonic() - started
    picture = sheet or out.absolute().with_name(f"{out.absolute().name}-examples.png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_examples(tally, font).save(picture, "PNG")
    if as_json:
        print_json(_answer(made, tally, out, picture, seconds))
    else:
        _say(tally, out, picture, seconds)
    if tally.photos == len(tally.failed):
        print(f"No photo of {catalog} could be read.", file=sys.stderr)
        raise typer.Exit(1)


def _masker(method: str, network: str | None, keep: str | None) -> tuple[Masker, dict[str, Any]]:
    """What masks photos, and how the record of it names that."""
    from data.background import garment_mask

    if method == "grabcut":
        if network is not None or keep is not None:
            raise typer.BadParameter("--network and --keep go with --method network; GrabCut tells no classes apart.")
        return garment_mask, {"method": method, "network": None, "keep": None}
    if method != "network":
        raise typer.BadParameter(f"--method is grabcut or network; got {method}.")
    from data.segmentation import DEFAULT_NETWORK, KEEPS, SegmentationNetwork

    name, keep = network or DEFAULT_NETWORK, keep or "clothes"
    if keep not in KEEPS:
        raise typer.BadParameter(f"--keep is {' or '.join(KEEPS)}; got {keep}.")
    return SegmentationNetwork(name, keep), {"method": method, "network": name, "keep": keep}


def _answer(made: dict[str, Any], tally: Tally, out: Path, sheet: Path, seconds: float) -> dict[str, Any]:
    return {
        **made,
        "out": str(out),
        "photos": tally.photos,
        "masked": tally.masked,
        "unmasked": len(tally.unmasked),
        "failed": len(tally.failed),
        "failures": [{"item_id": item_id, "reason": reason} for item_id, reason in tally.failed],
        "seconds": round(seconds, 1),
        "sheet": str(sheet),
    }


def _say(tally: Tally, out: Path, sheet: Path, seconds: float) -> None:
    """What a run did."""
    print(
        f"{tally.masked} photos masked, {len(tally.unmasked)} left as they are for want of a mask, "
        f"{len(tally.failed)} that cannot be read copied, in {seconds:.1f} s ({tally.photos / seconds:.0f} photos/s)."
    )
    for item_id, reason in tally.failed[:_NAMED]:
        print(f"  {item_id}: {reason}")
    if len(tally.failed) > _NAMED:
        print(f"  and {len(tally.failed) - _NAMED} more; {out / 'mask.json'} lists them.")
    print(f"The catalog without backgrounds is {out}; look at examples in {sheet}.")
