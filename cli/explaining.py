"""Commands that say why: explain, neighbours-sheet."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.labelling import HeadOption, load_heads
from cli.options import FontOption, GalleryOption, JsonOption, check_files
from cli.output import plain_labels, print_json, print_table
from cli.sheets import label_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data.catalog import CatalogItem
    from heads.fitted import FittedHead
    from indexer.encoders import Encoder, EncoderCard
    from indexer.gallery import Gallery, Neighbour
    from service import answers
    from service.explain import Explainer, ExplainOptions
    from service.match import Match
    from service.saliency import Subject


@dataclass(frozen=True, slots=True)
class _Asked:
    """How, whether the map's numbers are wanted, and the font of the picture."""

    options: ExplainOptions
    with_map: bool
    font: Path | None


QueryOption = Annotated[str | None, typer.Option("--query-item", help="An item of the gallery instead of a photo.")]
BoxOption = Annotated[str | None, typer.Option(help="Region of the photo: x,y,width,height as fractions 0..1.")]


def explain(
    gallery: GalleryOption,
    photo: Annotated[Path | None, typer.Argument(help="Query photo.", show_default=False)] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="occlusion, gradcam, attention, rollout or match. Default: match with --item, else occlusion.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Label column whose prediction is explained.")] = None,
    label: Annotated[str | None, typer.Option(help="Label to explain. Default: the likeliest.")] = None,
    head: HeadOption = None,
    item: Annotated[str | None, typer.Option(help="Of match: the item of the gallery to compare with.")] = None,
    query_item: QueryOption = None,
    box: BoxOption = None,
    layer: Annotated[
        str | None, typer.Option(help="Of gradcam: name of a module. Default: the last that gives a map.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Of occlusion: side of what is hidden, pixels of the letterboxed photo.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Of occlusion: its steps. Default: half the window.")
    ] = None,
    fill: Annotated[
        str | None, typer.Option(help="Of occlusion: what hides: mean (the default), white, black or blur.")
    ] = None,
    relative: Annotated[
        bool,
        typer.Option(
            "--relative/--whole",
            help="Of match: shares beyond what a place brings to the gallery's items on average, or whole ones.",
        ),
    ] = False,
    faithfulness: Annotated[
        bool, typer.Option(help="Measure how far the map can be trusted, which takes longer than most maps.")
    ] = True,
    out: Annotated[Path, typer.Option(help="Write the picture into this PNG.")] = Path("map.png"),
    array: Annotated[Path | None, typer.Option(help="Write the map's numbers, (H, W) float32, into this .npy.")] = None,
    font: FontOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which places of a photo an answer hangs on, and how far the picture can be trusted."""
    from indexer.files import replace_file
    from indexer.gallery import Gallery
    from service.explain import ExplainOptions, check_question

    query = _query(photo, query_item, box)
    method = method or ("occlusion" if item is None else "match")
    check_question(method, target, item, label=label, head=head)
    check_files({"--out": out, "--array": array})
    options = ExplainOptions(
        method=method,
        layer=layer,
        window=window,
        stride=stride,
        fill=fill,
        is_relative=relative,
        is_checked=faithfulness,
    )
    asked = _Asked(options, with_map=array is not None, font=font)
    opened = Gallery(gallery)
    if item is not None:
        answer = _match(opened, query, item, asked)
    else:
        assert target is not None
        answer = _label(opened, query, load_heads(opened, [target], head)[0], label, asked)
    replace_file(out, base64.b64decode(answer.overlay_png))
    if array is not None:
        _write_array(array, answer.map)
    if as_json:
        return print_json(_described(answer, opened, query, out, array))
    _say(answer)
    print(f"The picture is {out}.")
    return None


def neighbours_sheet(
    gallery: GalleryOption,
    photo: Annotated[Path | None, typer.Argument(help="Query photo.", show_default=False)] = None,
    query_item: QueryOption = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, max=50, help="Neighbours.")] = 5,
    where: Annotated[
        str | None, typer.Option(help="Labels to require: articleType=Shirts,baseColour=Blue|Navy Blue.")
    ] = None,
    box: BoxOption = None,
    by_product: Annotated[bool, typer.Option("--by-product", help="The closest photo of each product only.")] = False,
    relative: Annotated[
        bool | None,
        typer.Option(
            "--relative/--whole",
            help="Shares beyond what a place brings to the gallery's items on average, or whole ones. Default: "
            "relative, but whole where the encoder pools cls, whose patches do not add up.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Write the sheet into this PNG.")] = Path("neighbours.png"),
    font: FontOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a query and its neighbours, each pair with the places that make them alike."""
    from data.images import encode_png
    from indexer.encoders import load_encoder_of
    from indexer.files import replace_file
    from indexer.filters import parse_where
    from indexer.gallery import Gallery
    from service.explain import Explainer, ExplainOptions
    from service.match_overlay import draw_match_sheet
    from service.networks import Networks

    query = _query(photo, query_item, box)
    check_files({"--out": out})
    opened = Gallery(gallery)
    subject = _subject(opened, query, opened.card)
    encoder = load_encoder_of(opened.card)
    is_relative = encoder.card.pooling != "cls" if relative is None else relative
    explainer = Explainer(encoder, Networks(), ExplainOptions("match", is_relative=is_relative, is_checked=False))
    found = opened.neighbours(
        encoder.encode(subject.pixels[None])[0],
        k,
        where=None if where is None else parse_where(where),
        group_by_product=by_product,
        exclude=query if isinstance(query, str) else None,
    )
    rows, matches = _match_each(explainer, opened, subject, found)
    replace_file(out, encode_png(draw_match_sheet(subject, rows, font_file=font)))
    if as_json:
        return print_json(
            {
                "query": _name(query),
                "gallery": str(gallery),
                "version": opened.snapshot.version,
                "encoder": opened.card.name,
                "out": str(out),
                "neighbours": [_neighbour(rank, *one) for rank, one in enumerate(zip(found, matches, strict=True), 1)],
            }
        )
    print(f"{len(found)} neighbours of {_name(query)}; the sheet is {out}.")
    return None


def _query(photo: Path | None, item_id: str | None, box: str | None) -> CatalogItem | str:
    """The photo asked about, or the item_id of the gallery's own."""
    from data.catalog import Box, CatalogItem

    if (photo is None) == (item_id is None) or (item_id is not None and box is not None):
        raise typer.BadParameter("Give a photo, with --box if you like, or --query-item, and not both.")
    if item_id is not None:
        return item_id
    assert photo is not None
    return CatalogItem(photo.name, photo, box=None if box is None else Box.parse(box))


def _name(query: CatalogItem | str) -> str:
    return query if isinstance(query, str) else query.item_id


def _subject(gallery: Gallery, query: CatalogItem | str, card: EncoderCard) -> Subject:
    """A photo, or an item's, as an encoder and as people see it."""
    from data.images import read_pixels, read_view
    from service.saliency import SHOWN, Subject

    if isinstance(query, str):
        query = gallery.item(query)
    pixels = read_pixels(query.image, card.image_size, box=query.box)
    return Subject(pixels, read_view(query.image, SHOWN), query.box)


@contextmanager
def _explainer(encoder: Encoder, options: ExplainOptions) -> Iterator[Explainer]:
    """On all cores."""
    from indexer.encoding import encode_across
    from indexer.runtimes import cpu_count
    from service.explain import Explainer
    from service.networks import Networks

    with encode_across(encoder, cpu_count()) as encode:
        yield Explainer(encoder, Networks(), options, encode=encode)


def _label(
    gallery: Gallery, query: CatalogItem | str, fitted: FittedHead, label: str | None, asked: _Asked
) -> answers.Explanation:
    from indexer.encoders import load_encoder_of
    from service.comparators import encoders_of
    from service.explanation import label_answer

    others = encoders_of([fitted.card], gallery.card, load_encoder_of)
    encoder = others[0] if others else load_encoder_of(gallery.card)
    subject = _subject(gallery, query, encoder.card)
    with _explainer(encoder, asked.options) as explainer:
        explained = explainer.label(subject, fitted, label)
    return label_answer(
        explained,
        fitted,
        gallery,
        receipt=_receipt(gallery),
        with_map=asked.with_map,
        font_file=asked.font,
    )


def _match(gallery: Gallery, query: CatalogItem | str, item_id: str, asked: _Asked) -> answers.Explanation:
    from indexer.encoders import load_encoder_of
    from service.explanation import match_answer

    subjects = _subject(gallery, query, gallery.card), _subject(gallery, item_id, gallery.card)
    with _explainer(load_encoder_of(gallery.card), asked.options) as explainer:
        explained = explainer.match(*subjects, gallery)
    return match_answer(
        explained,
        gallery.item(item_id),
        receipt=_receipt(gallery),
        with_map=asked.with_map,
        font_file=asked.font,
    )


def _match_each(
    explainer: Explainer, gallery: Gallery, query: Subject, found: Sequence[Neighbour]
) -> tuple[list[tuple[Subject | None, Match | None, list[str]]], list[Match | None]]:
    """The rows of a sheet of neighbours, and the match of each; None where its photo cannot be read any more."""
    from data.images import ImageError

    rows: list[tuple[Subject | None, Match | None, list[str]]] = []
    for near in found:
        item, match = None, None
        try:
            explained = explainer.match(query, _subject(gallery, near.item.item_id, gallery.card), gallery)
            item, match = explained.item, explained.match
        except ImageError as error:
            # The sheet says so; the neighbour is one all the same.
            print(f"{near.item.item_id}: {error}", file=sys.stderr)
        rows.append((item, match, [near.item.item_id, *label_lines(near.item)]))
    return rows, [match for _, match, _ in rows]


def _receipt(gallery: Gallery) -> answers.Receipt:
    from service.answers import Receipt

    card = gallery.card
    return Receipt(gallery.snapshot.version, len(gallery), card.name, card.fingerprint, gallery.searcher.variant)


def _write_array(path: Path, values: Sequence[Sequence[float]] | None) -> None:
    import io

    import numpy as np

    from indexer.files import replace_file

    file = io.BytesIO()
    np.save(file, np.array(values, np.float32))
    replace_file(path, file.getvalue())


def _described(
    answer: answers.Explanation, gallery: Gallery, query: CatalogItem | str, out: Path, array: Path | None
) -> dict[str, Any]:
    """What --json prints: the service's answer, with files instead of pictures and numbers."""
    said = asdict(answer)
    for name in ("overlay_png", "map", "receipt"):
        del said[name]
    if answer.match is not None:
        del said["match"]["map"]
    return {
        "query": _name(query),
        "gallery": str(gallery.folder),
        "version": gallery.snapshot.version,
        "encoder": gallery.card.name,
        "out": str(out),
        "array": None if array is None else str(array),
        **said,
    }


def _say(answer: answers.Explanation) -> None:
    """The answer in words and a few tables."""
    if answer.match is not None:
        usual = "" if answer.match.usual is None else f", of which {answer.match.usual:.4f} is usual in the gallery"
        print(f"Similarity with {answer.match.item.item_id}: {answer.similarity:.4f}{usual}")
    else:
        print(f"{answer.target}: {answer.label}, {answer.probability:.4f} ({answer.head} head)")
    print(f"{answer.method}: {answer.meaning} From {answer.lowest:.4g} to {answer.highest:.4g}.")
    if answer.faithfulness is not None:
        measured = answer.faithfulness
        print_table(
            ["area", "this map", "random maps"],
            [
                ["deletion (lower is better)", f"{measured.deletion:.3f}", f"{measured.random_deletion:.3f}"],
                ["insertion (higher is better)", f"{measured.insertion:.3f}", f"{measured.random_insertion:.3f}"],
            ],
        )
        print(measured.verdict)
    if answer.votes:
        rows = [[vote.item.item_id, f"{vote.weight:.3f}", _labels(vote.item.labels)] for vote in answer.votes]
        print_table(["voted", "weight", "labels"], rows)
    if answer.match is not None:
        links = [
            [f"{n}", f"{one.share:.4f}", f"{one.query_x:.2f}, {one.query_y:.2f}", f"{one.item_x:.2f}, {one.item_y:.2f}"]
            for n, one in enumerate(answer.match.links, 1)
        ]
        print_table(["link", "share", "query x, y", "item x, y"], links)
    for remark in answer.remarks:
        print(remark, file=sys.stderr)


def _labels(labels: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{target}={'|'.join(names)}" for target, names in labels.items())


def _neighbour(rank: int, near: Neighbour, match: Match | None) -> dict[str, Any]:
    return {
        "rank": rank,
        "item_id": near.item.item_id,
        "distance": round(near.distance, 6),
        "similarity": round(near.similarity, 6),
        "labels": plain_labels(near.item),
        "links": [] if match is None else [asdict(link) for link in match.links],
    }
