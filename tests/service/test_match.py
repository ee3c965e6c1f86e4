"""Where a similarity comes from: equal to plain loops, adding up, and pointing at what two photos have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.catalog import Box
from data.images import crop, letterbox, open_image
from indexer.encoders import EMBEDDED, load_encoder_of, prepare_encoder
from indexer.feature_maps import PatchEncoder, PatchParts, load_patch_encoder
from service.match import Link, Match, match
from service.saliency import ExplanationError, Subject

ROOT = Path(__file__).parents[2]
DATASETS = ROOT.parent / "shared" / "datasets"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty cache of converted networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODISTE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=["mean+early", "mean", "gem"])
def encoder(request: pytest.FixtureRequest, cache: None) -> PatchEncoder:
    """The embedded encoder in each of its poolings."""
    card = prepare_encoder(EMBEDDED, pooling=request.param, runtime="openvino", precision="fp32").card
    return load_patch_encoder(card)


def subject_of(image: Image.Image, size: int = 224, box: Box | None = None) -> Subject:
    pixels = letterbox(image if box is None else crop(image, box), size)
    return Subject(pixels, np.asarray(image), box)


def blank(width: int, height: int, size: int, box: Box | None = None) -> Subject:
    return subject_of(Image.new("RGB", (width, height), "grey"), size, box)


def random_parts(grid: tuple[int, int], *, width: int = 6, seed: int = 0, remainder: bool = False) -> PatchParts:
    random = np.random.default_rng(seed)
    parts = random.normal(size=(grid[0] * grid[1], width)).astype(np.float32)
    rest = random.normal(size=width).astype(np.float32) if remainder else None
    return PatchParts(parts, grid, rest, is_exact=not remainder)


def explain(encoder: PatchEncoder, query: Subject, item: Subject, *, links: int = 8) -> Match:
    return match(*encoder.encode_parts(np.stack([query.pixels, item.pixels])), query, item, links=links)


def slow_map(own: PatchParts, other: PatchParts, size: int) -> NDArray[np.float64]:
    """The definition: a pair of patches and a piece of a pixel at a time."""
    (height, width), values = own.grid, np.zeros((size, size))
    for row in range(height):
        for column in range(width):
            share = sum(
                float(one * two)
                for patch in other.parts
                for one, two in zip(own.parts[row * width + column], patch, strict=True)
            )
            # A square cut into size * height rows and size * width columns has whole pieces in each patch and pixel.
            for down in range(row * size, (row + 1) * size):
                for across in range(column * size, (column + 1) * size):
                    values[down // height, across // width] += share / size**2
    return values


def slow_links(own: PatchParts, other: PatchParts, query: Subject, item: Subject) -> list[Link]:
    """The definition: all pairs by strength, each patch once."""

    def places(parts: PatchParts, subject: Subject) -> dict[int, tuple[float, float]]:
        found = {}
        for number in range(len(parts.parts)):
            row, column = number // parts.grid[1], number % parts.grid[1]
            x = (column + 0.5) / parts.grid[1] * len(subject.pixels)
            y = (row + 0.5) / parts.grid[0] * len(subject.pixels)
            area = subject.area
            if area.left <= x <= area.left + area.width and area.top <= y <= area.top + area.height:
                found[number] = ((x - area.left) / area.width, (y - area.top) / area.height)
        return found

    starts, ends = places(own, query), places(other, item)
    middle = np.mean([own.parts[p] for p in starts], axis=0), np.mean([other.parts[q] for q in ends], axis=0)
    pairs = [(float((own.parts[p] - middle[0]) @ (other.parts[q] - middle[1])), p, q) for p in starts for q in ends]
    links = []
    for strength, p, q in sorted(pairs, reverse=True):
        if strength > 0 and p in starts and q in ends:
            links.append(Link(*starts.pop(p), *ends.pop(q), share=float(own.parts[p] @ other.parts[q])))
    return links


def numbers(links: object) -> NDArray[np.float64]:
    return np.array([(one.query_x, one.query_y, one.item_x, one.item_y, one.share) for one in links])  # type: ignore[attr-defined]


# A square that patches divide and one that they do not; a grid that is not square; tall, wide and square photos.
@pytest.mark.parametrize(("grid", "size"), [((4, 4), 16), ((4, 4), 14), ((3, 5), 11)])
@pytest.mark.parametrize("remainder", [False, True])
def test_maps_and_links_are_those_of_plain_loops(grid: tuple[int, int], size: int, remainder: bool) -> None:
    query, item = blank(30, 60, size), blank(40, 30, size)
    own, other = (random_parts(grid, seed=seed, remainder=remainder) for seed in (1, 2))
    found = match(own, other, query, item, links=100)
    for values, expected, subject, padding in (
        (found.query_map, slow_map(own, other, size), query, found.padding[0]),
        (found.item_map, slow_map(other, own, size), item, found.padding[1]),
    ):
        assert (values.dtype, values.shape) == (np.float32, (size, size))
        np.testing.assert_allclose(values, expected, atol=1e-5)
        assert values.sum() == pytest.approx(found.similarity - found.unattributed, abs=1e-4)
        inside = np.zeros((size, size), bool)
        inside[subject.area.rows, subject.area.columns] = True
        assert padding == pytest.approx(expected[~inside].sum(), abs=1e-4)
        assert abs(padding) > 1e-3
    expected_links = slow_links(own, other, query, item)
    assert len(expected_links) > 3
    np.testing.assert_allclose(numbers(found.links), numbers(expected_links), atol=1e-5)
    assert found.similarity == pytest.approx(float(own.embedding @ other.embedding), abs=1e-5)
    assert found.is_exact is not remainder
    assert found.unattributed == 0 if not remainder else abs(found.unattributed) > 1e-2
    # Fewer are the strongest of these.
    assert match(own, other, query, item, links=2).links == found.links[:2]
    assert match(own, other, query, item, links=0).links == ()


def test_two_photos_of_four_patches_by_hand() -> None:
    # The query is all in its first patch, the item in its first, 0.6, and in its last, 0.8, of another direction.
    own = PatchParts(np.array([[1, 0], [0, 0], [0, 0], [0, 0]], np.float32), (2, 2))
    other = PatchParts(np.array([[0.6, 0], [0, 0], [0, 0], [0, 0.8]], np.float32), (2, 2))
    square, wide = blank(4, 4, 4), blank(4, 2, 4)
    found = match(own, other, square, square)
    assert found.similarity == pytest.approx(0.6)
    expected = np.zeros((4, 4))
    # Over the four pixels of a patch.
    expected[:2, :2] = 0.15
    for values in (found.query_map, found.item_map):
        np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert found.links[0] == Link(0.25, 0.25, 0.25, 0.25, pytest.approx(0.6))
    assert (found.padding, found.unattributed, found.is_exact) == ((0, 0), 0, True)
    # A photo that is half as high lies in rows 1 and 2: half of each patch is padding.
    assert match(own, other, wide, square).padding == pytest.approx((0.3, 0))
    assert match(own, other, square, wide).padding == pytest.approx((0, 0.3))


def test_what_a_class_token_brings_is_no_patchs() -> None:
    # The patches bring 0.6 * 0.8, and the class tokens as much, in another number, as `cls+mean` has them.
    own = PatchParts(np.array([[0, 0.6]], np.float32), (1, 1), np.array([0.8, 0], np.float32))
    other = PatchParts(np.array([[0, 0.8]], np.float32), (1, 1), np.array([0.6, 0], np.float32))
    found = match(own, other, blank(4, 4, 4), blank(4, 4, 4))
    assert (found.similarity, found.unattributed) == (pytest.approx(0.96), pytest.approx(0.48))
    assert found.query_map.sum() == pytest.approx(0.48)
    assert found.is_exact


def test_a_class_token_alone_is_approximated_and_what_is_missing_is_said() -> None:
    # The class tokens are (1, 0) and (0, 1): the photos are nothing alike. Their patches are the same.
    patch = np.array([[0.6, 0.8]], np.float32)
    own = PatchParts(patch, (1, 1), np.array([0.4, -0.8], np.float32), is_exact=False)
    other = PatchParts(patch, (1, 1), np.array([-0.6, 0.2], np.float32), is_exact=False)
    found = match(own, other, blank(4, 4, 4), blank(4, 4, 4))
    assert found.similarity == pytest.approx(0, abs=1e-6)
    assert found.query_map.sum() == pytest.approx(1)
    assert found.unattributed == pytest.approx(-1)
    assert not found.is_exact


def test_relative_shares_are_beyond_the_usual_by_hand() -> None:
    # Two patches a photo of two numbers: the query's bring 0.6 and 0.2 of u . v = 0.8 in whole.
    query = PatchParts(np.array([[0.6, 0], [0.2, 0.6]], np.float32), (1, 2))
    item = PatchParts(np.array([[0.5, 0.3], [0.5, -0.3]], np.float32), (1, 2))
    photos = blank(2, 2, 2), blank(2, 2, 2)
    whole = match(query, item, *photos)
    assert (whole.usual, whole.similarity) == (None, pytest.approx(0.8))
    np.testing.assert_allclose(whole.query_map.sum(0), [0.6, 0.2], atol=1e-6)
    # To the usual (0.5, 0.5) they bring 0.3 and 0.4, and the item's patches 0.4 and 0.1.
    found = match(query, item, *photos, usual=np.array([0.5, 0.5], np.float32))
    np.testing.assert_allclose(found.query_map.sum(0), [0.3, -0.2], atol=1e-6)
    np.testing.assert_allclose(found.item_map.sum(0), [0.58 - 0.4, 0.22 - 0.1], atol=1e-6)
    assert found.usual == pytest.approx((0.7, 0.5))
    assert found.query_map.sum() == pytest.approx(found.similarity - 0.7)
    assert (found.similarity, found.links) == (whole.similarity, whole.links)


def test_what_is_usual_is_refused_where_patches_do_not_add_up() -> None:
    parts = random_parts((2, 2), remainder=True)
    with pytest.raises(ExplanationError, match="Ask for whole shares"):
        match(parts, parts, blank(4, 4, 4), blank(4, 4, 4), usual=np.zeros(6, np.float32))


def test_links_are_places_in_the_explained_region() -> None:
    # Half of a photo of 80 x 40: a square of 40, of which the upper left quarter answers to itself.
    parts = PatchParts(np.array([[1, 0], [0, 0], [0, 0], [0, 0]], np.float32), (2, 2))
    boxed = blank(80, 40, 8, Box(0.5, 0, 0.5, 1))
    assert (boxed.area.width, boxed.area.height) == (8, 8)
    assert match(parts, parts, boxed, blank(40, 40, 8)).links[0] == Link(0.25, 0.25, 0.25, 0.25, 1)
    # The whole photo lies in rows 2 to 6: the middles of the patches are at its upper and lower edge.
    assert match(parts, parts, blank(80, 40, 8), boxed).links[0] == Link(0.25, 0, 0.25, 0.25, 1)


def test_nothing_is_linked_where_nothing_stands_out() -> None:
    plain = PatchParts(np.full((4, 2), 0.25, np.float32), (2, 2))
    assert match(plain, plain, blank(4, 4, 4), blank(4, 4, 4)).links == ()
    # No middle of a patch lies on so thin a photo.
    parts = random_parts((2, 2))
    found = match(parts, parts, blank(2, 40, 40), blank(40, 40, 40))
    assert found.links == ()
    assert found.query_map.sum() == pytest.approx(found.similarity, rel=1e-4)


def test_parts_of_two_encoders_and_fewer_than_no_links() -> None:
    subject = blank(4, 4, 4)
    with pytest.raises(ExplanationError, match=r"parts of 6 numbers and the item into parts of 5\. Split both with"):
        match(random_parts((2, 2)), random_parts((2, 2), width=5), subject, subject)
    with pytest.raises(ExplanationError, match=r"0 links or more; got -1"):
        match(random_parts((2, 2)), random_parts((2, 2)), subject, subject, links=-1)


def motif() -> Image.Image:
    """A target of 64 pixels."""
    y, x = np.mgrid[:64, :64] - 31.5
    rings = (np.hypot(x, y) // 6 % 2 == 0)[:, :, None]
    return Image.fromarray(np.where(rings, (200, 30, 40), (250, 240, 90)).astype(np.uint8))


def plant(size: tuple[int, int], colour: str, place: tuple[int, int]) -> Subject:
    """A plain photo with the motif."""
    image = Image.new("RGB", size, colour)
    image.paste(motif(), place)
    return subject_of(image)


def holds(place: tuple[int, int], x: float, y: float) -> bool:
    """Whether a point lies on the motif, or within half a patch of it: a patch sees beyond its own pixels."""
    return all(start - 16 <= value <= start + 64 + 16 for start, value in zip(place, (x, y), strict=True))


# Photos of 224 pixels, so that the letterboxed square has the same scale; one tall, which has padding at its sides.
@pytest.mark.parametrize(
    ("size", "place", "other_place"), [((224, 224), (16, 32), (128, 128)), ((160, 224), (80, 144), (32, 16))]
)
def test_links_and_peaks_lie_on_what_two_photos_share(
    size: tuple[int, int], place: tuple[int, int], other_place: tuple[int, int], encoder: PatchEncoder
) -> None:
    query, item = plant(size, "#c8d8e8", place), plant((224, 224), "#e0d0b8", other_place)
    found = explain(encoder, query, item)
    for link in found.links[:3]:
        assert holds(place, link.query_x * size[0], link.query_y * size[1])
        assert holds(other_place, link.item_x * 224, link.item_y * 224)
    for values, subject, where in ((found.query_map, query, place), (found.item_map, item, other_place)):
        row, column = np.unravel_index(values.argmax(), values.shape)
        # Anywhere in the patch of the peak.
        assert holds(where, column // 32 * 32 + 16 - subject.area.left, row // 32 * 32 + 16 - subject.area.top)


def test_a_photo_with_itself_answers_to_itself(encoder: PatchEncoder) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 40, 3)).astype(np.uint8)).resize((160, 240))
    subject = subject_of(image)
    found = explain(encoder, subject, subject)
    assert found.similarity == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found.query_map, found.item_map, atol=1e-7)
    assert found.query_map.sum() == pytest.approx(1, abs=1e-4)
    assert len(found.links) == 8
    assert all((one.query_x, one.query_y) == (one.item_x, one.item_y) for one in found.links)
    assert len({(one.query_x, one.query_y) for one in found.links}) == 8


def test_shares_of_real_photos_add_up_and_links_stay_on_the_photo(encoder: PatchEncoder) -> None:
    if not DATASETS.is_dir():
        pytest.skip(f"the real photos are not at {DATASETS}")
    paths = sorted(DATASETS.glob("clothing-small/validation/*/*.jpg"))
    subjects = [subject_of(open_image(path)) for path in paths[:: len(paths) // 4][:4]]
    embeddings = load_encoder_of(encoder.card).encode(np.stack([one.pixels for one in subjects]))
    for number, subject in enumerate(subjects[1:], start=1):
        found = explain(encoder, subjects[0], subject)
        assert found.similarity == pytest.approx(float(embeddings[0] @ embeddings[number]), abs=1e-5)
        for values in (found.query_map, found.item_map):
            assert values.sum(dtype=np.float64) == pytest.approx(found.similarity, abs=1e-5)
        assert found.links
        assert all(0 <= value <= 1 for row in numbers(found.links)[:, :4] for value in row)
        # Both photos are tall: a quarter of the square is padding, and says little.
        assert 0 <= max(found.padding) < 0.15 * found.similarity
