"""A shortcut audit: figures worked by hand on made-up embeddings, and drawn photos with a planted shortcut."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.alterations import ALONE, CONDITIONS, DARKENED, FLIPPED, MASKED, OF_BACKGROUND, REPLACED, TAGGED, TURNED
from data.catalog import Box, CatalogItem
from data.images import read_pixels
from heads.checks import HeadError
from heads.fitting import FitOptions
from indexer.gallery import Gallery
from indexer.rows import content_hash_of
from service import audit_photos
from service.audit import audit_target, vote_by_box
from service.audit_neighbours import find_neighbours, find_own_rows, measure_neighbours
from service.audit_photos import (
    UNALTERED,
    Alterer,
    AuditedPhotos,
    AuditError,
    choose_own_queries,
    choose_queries,
    encode_conditions,
)
from service.audit_report import render_audit
from service.head_fitting import fit_gallery
from tests.heads.worlds import clusters
from tests.indexer.fakes import CARD, FakeEncoder, catalog_of, make_store
from tests.service.galleries import NAMES, fit, load, make_gallery, photo, reopen
from tests.service.test_report import Page

EMBEDDINGS, NUMBERS = clusters(60, labels=3, spread=0.05)
TYPES = [NAMES[number] for number in NUMBERS]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """Sixty items of three types that lie far apart, with two heads that are never wrong about them."""
    opened = make_gallery(tmp_path_factory.mktemp("shop") / "gallery", EMBEDDINGS, TYPES)
    fit(opened, "knn", "linear")
    return opened


def audited(
    gallery: Gallery, labels: list[str], said: Mapping[str, Sequence[int | None]], *, ids: str = "q", boxes: Any = None
) -> AuditedPhotos:
    """Photos of some labels that look, under each condition, like the gallery's item of a number; None: left out."""
    nothing = np.zeros(EMBEDDINGS.shape[1], np.float32)
    looks = {
        name: np.array([nothing if row is None else EMBEDDINGS[row] for row in rows], np.float32)
        for name, rows in said.items()
    }
    return AuditedPhotos(
        items=tuple(CatalogItem(f"{ids}{n:05}", photo(n), labels={"type": (name,)}) for n, name in enumerate(labels)),
        hashes=tuple(f"of query {n}" for n in range(len(labels))),
        present={name: np.array([row is not None for row in rows]) for name, rows in said.items()},
        embeddings={gallery.card.fingerprint: looks},
        boxes=np.zeros((len(labels), 5), np.float32) if boxes is None else boxes,
        unreadable=0,
        without_garment=0,
    )


def target_of(gallery: Gallery, photos: AuditedPhotos, kind: str = "linear") -> dict[str, Any]:
    own = find_own_rows(gallery, photos)
    return audit_target(gallery, photos, [load(gallery, kind)], find_neighbours(gallery, photos, own), own)


def conditions_of(gallery: Gallery, photos: AuditedPhotos, kind: str = "linear") -> dict[str, Any]:
    return {one["condition"]: one for one in target_of(gallery, photos, kind)["heads"][kind]["conditions"]}


def first_of(name: str) -> int:
    return TYPES.index(name)


NA, DRESS, SKIRT = (first_of(name) for name in NAMES)


# Figures


def test_accuracy_and_answers_are_counted_on_the_photos_that_could_be_altered(gallery: Gallery) -> None:
    # Ten dresses; one looks like a skirt as it is. Darkened, three more do, and one cannot be darkened.
    labels = ["dress"] * 10
    before = [SKIRT, *[DRESS] * 9]
    after = [SKIRT, SKIRT, SKIRT, SKIRT, *[DRESS] * 5, None]
    one = conditions_of(gallery, audited(gallery, labels, {UNALTERED: before, DARKENED: after}))[DARKENED]
    assert (one["photos"], one["left_out"], one["answers_changed"]) == (9, 1, 3)
    # Of nine, eight are right before and five after.
    assert one["accuracy_unaltered"] == pytest.approx(8 / 9, abs=1e-4)
    assert one["accuracy"] == pytest.approx(5 / 9, abs=1e-4)
    assert one["accuracy_difference"] == pytest.approx(-3 / 9, abs=1e-4)
    # Three to none: 2 / 2^3.
    assert one["p_value"] == one["p_value_corrected"] == 0.25
    assert one["is_shown"] is False
    assert one["by_label"] == [{"label": "dress", "photos": 9, "right_unaltered": 8, "right": 5, "answers_changed": 3}]
    assert [case["item_id"] for case in one["cases"]] == ["q00001", "q00002", "q00003"]
    assert {(case["before"], case["after"]) for case in one["cases"]} == {("dress", "skirt")}
    assert "is right about 55.6 % of 9 photos, and about 88.9 % as they are. No difference is shown: " in one["verdict"]
    assert "-33.3 points" in one["verdict"]
    assert one["verdict"].endswith("McNemar p = 0.250. 3 changed their answer.")


def test_the_probability_is_of_the_label_before(gallery: Gallery) -> None:
    photos = audited(gallery, ["skirt"] * 4, {UNALTERED: [DRESS] * 4, FLIPPED: [DRESS, DRESS, SKIRT, SKIRT]})
    one = conditions_of(gallery, photos)[FLIPPED]
    head = load(gallery, "linear")
    dress = head.card.labels.index("dress")
    said = head.answer(EMBEDDINGS[[DRESS, SKIRT]]).probabilities[:, dress]
    assert one["probability_unaltered"] == pytest.approx(said[0], abs=1e-4)
    assert one["probability"] == pytest.approx(said.mean(), abs=1e-4)
    assert one["probability_difference"] == pytest.approx((said[1] - said[0]) / 2, abs=2e-4)
    case = one["cases"][0]
    assert case["probability_before"] == pytest.approx(said[0], abs=1e-4)
    assert case["probability_after"] == pytest.approx(said[1], abs=1e-4)
    assert case["probability_of_after"] > 0.5 > case["probability_after"]


def test_the_most_telling_photos_come_first(gallery: Gallery) -> None:
    # Between a skirt and a dress, in no order: the nearer to a skirt, the more has fallen, and the surer is the answer.
    shares = np.random.default_rng(0).permutation(np.linspace(0.36, 0.46, 6)).astype(np.float32)
    between = EMBEDDINGS[SKIRT] + shares[:, None] * (EMBEDDINGS[DRESS] - EMBEDDINGS[SKIRT])
    between /= np.linalg.norm(between, axis=1, keepdims=True)
    photos = audited(gallery, ["skirt"] * 6, {UNALTERED: [DRESS] * 6})
    looks = {**photos.embeddings[gallery.card.fingerprint], FLIPPED: between, ALONE: between}
    every = np.ones(6, bool)
    photos = replace(
        photos,
        embeddings={gallery.card.fingerprint: looks},
        present={UNALTERED: every, FLIPPED: every, ALONE: every},
    )
    order = [f"q{row:05}" for row in np.argsort(shares)]
    found = conditions_of(gallery, photos)
    assert [case["item_id"] for case in found[FLIPPED]["cases"]] == order
    assert [case["item_id"] for case in found[ALONE]["cases"]] == order


def test_a_loss_that_is_shown_is_called_one_and_corrected_for_all_conditions(gallery: Gallery) -> None:
    before = [DRESS] * 20
    said = {UNALTERED: before, TAGGED: [SKIRT] * 8 + [DRESS] * 12, TURNED: [SKIRT] * 5 + [DRESS] * 15, FLIPPED: before}
    found = conditions_of(gallery, audited(gallery, ["dress"] * 20, said))
    # Eight to none is 2 / 2^8, times three conditions; five to none 2 / 2^5, times two.
    assert found[TAGGED]["p_value_corrected"] == pytest.approx(3 * 2 / 256, abs=1e-4)
    assert found[TURNED]["p_value_corrected"] == pytest.approx(2 * 2 / 32, abs=1e-4)
    assert [found[name]["is_shown"] for name in (TAGGED, TURNED, FLIPPED)] == [True, False, False]
    verdict = found[TAGGED]["verdict"]
    assert verdict.startswith(
        "With a price tag in a corner, linear is right about 60.0 % of 20 photos, and about 100.0 % as they are: it "
        "loses 40.0 points ("
    )
    assert verdict.endswith(
        "McNemar p = 0.023, corrected for 3 conditions. 8 changed their answer. It takes the tag for something that "
        "tells the label."
    )


def test_a_gain_is_called_one(gallery: Gallery) -> None:
    said = {UNALTERED: [SKIRT] * 10 + [DRESS] * 2, MASKED: [DRESS] * 12}
    verdict = conditions_of(gallery, audited(gallery, ["dress"] * 12, said))[MASKED]["verdict"]
    assert "it gains 83.3 points (" in verdict
    assert verdict.endswith("It does better so.")


def test_a_condition_that_no_photo_could_be_put_under(gallery: Gallery) -> None:
    said = {UNALTERED: [DRESS] * 3, REPLACED: [None] * 3, ALONE: [None] * 3}
    photos = audited(gallery, ["dress"] * 3, said)
    found = conditions_of(gallery, photos)
    for name in (REPLACED, ALONE):
        assert (found[name]["photos"], found[name]["left_out"], found[name]["accuracy"]) == (0, 3, None)
        assert found[name]["verdict"] == f"No photo could be put under {name}."
    own = find_own_rows(gallery, photos)
    assert measure_neighbours(photos, find_neighbours(gallery, photos, own))[0]["overlap_at_10"] is None


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_the_background_tells_the_label_or_not(gallery: Gallery, kind: str) -> None:
    labels = ["dress"] * 8 + ["skirt"] * 8 + ["NA"] * 8
    before = [DRESS] * 8 + [SKIRT] * 8 + [NA] * 8
    told = conditions_of(gallery, audited(gallery, labels, {UNALTERED: before, ALONE: before}), kind)[ALONE]
    assert told["told_by"] == "background"
    assert told["accuracy"] == 1
    assert told["commonest_share"] == pytest.approx(8 / 24, abs=1e-4)
    assert (told["p_value"], told["is_shown"]) == (None, None)
    # The surest photos that are still right are what to look at.
    assert len(told["cases"]) == 24
    assert told["verdict"].startswith(
        f"The background tells the label: with the garment filled in and the background alone left, {kind} is right "
        "about 100.0 % of 24 photos (86.2 % to 100.0 %); 33.3 % are “NA”, the commonest label"
    )
    lost = conditions_of(gallery, audited(gallery, labels, {UNALTERED: before, ALONE: [DRESS] * 24}), kind)[ALONE]
    assert lost["told_by"] == "nothing"
    assert lost["verdict"].startswith("No sign that the background tells the label: ")
    assert [case["label"] for case in lost["cases"]] == ["dress"] * 8
    # To be less often right than by chance is no sign either.
    never = conditions_of(gallery, audited(gallery, labels[:8], {UNALTERED: before[:8], ALONE: [SKIRT] * 8}), kind)[
        ALONE
    ]
    assert (never["accuracy"], never["commonest_share"], never["told_by"]) == (0, 1, "nothing")


def test_what_the_box_tells_is_not_put_down_to_the_background(gallery: Gallery) -> None:
    labels = ["dress"] * 12 + ["skirt"] * 12
    before = [DRESS] * 12 + [SKIRT] * 12
    # Tall boxes are of dresses and wide ones of skirts, so that eleven others of its own label are nearest to each.
    boxes = np.array([[0.2, 0, 0.6, 1, 0]] * 12 + [[0, 0.2, 1, 0.6, 0]] * 12, np.float32)
    one = conditions_of(gallery, audited(gallery, labels, {UNALTERED: before, ALONE: before}, boxes=boxes))[ALONE]
    assert (one["told_by"], one["box_share"]) == ("box", 1)
    assert "the place and size of what was filled give 100.0 %, and the two cannot be told apart" in one["verdict"]


def test_votes_by_box() -> None:
    # On a line at 0, 1, 2, 10, 11, 12: with five others all vote, so each label loses by its own absence, 2 to 3.
    line = np.array([[0], [1], [2], [10], [11], [12]], np.float32)
    truth = np.array([0, 0, 0, 1, 1, 1])
    assert vote_by_box(line, truth).tolist() == [1, 1, 1, 0, 0, 0]
    # With eleven of each, ten others of its own kind are nearest.
    many = np.concatenate([np.arange(11), 100 + np.arange(11)])[:, None].astype(np.float32)
    assert vote_by_box(many, np.repeat([0, 1], 11)).tolist() == [0] * 11 + [1] * 11
    # Each number counts by its spread: the second has a thousand times the range, and says nothing of the label.
    labels = np.repeat([0, 1], 40)
    mixed = np.column_stack([labels, 1e3 * (7 * np.arange(80) % 80)]).astype(np.float32)
    assert vote_by_box(mixed, labels).tolist() == labels.tolist()
    assert vote_by_box(line[:1], truth[:1]).tolist() == [-1]
    assert vote_by_box(line, np.full(6, -1)).tolist() == [-1] * 6


def test_a_label_that_the_head_does_not_know_is_never_right(gallery: Gallery) -> None:
    said = {UNALTERED: [DRESS] * 3, FLIPPED: [DRESS, DRESS, None], ALONE: [None, DRESS, DRESS]}
    found = target_of(gallery, audited(gallery, ["dress", "kilt", "kilt"], said))["heads"]["linear"]
    assert found["queries_with_unknown_label"] == 2
    assert found["accuracy"] == pytest.approx(1 / 3, abs=1e-4)
    assert [one["accuracy"] for one in found["conditions"]] == [0.5, 0]
    # Two kilts are each other's nearest box; a label that nobody can name is not told by it.
    assert found["conditions"][1]["box_share"] == 0


def test_photos_that_a_head_has_learned_are_counted(gallery: Gallery) -> None:
    said = {UNALTERED: [0, 1, 2], FLIPPED: [0, 1, 2]}
    own = target_of(gallery, audited(gallery, TYPES[:3], said, ids="i"))
    assert own["heads"]["linear"]["photos_learned"] == 3
    assert target_of(gallery, audited(gallery, TYPES[:3], said))["heads"]["linear"]["photos_learned"] == 0


def test_several_labels_an_item_are_refused(tmp_path: Path) -> None:
    shop = make_gallery(tmp_path / "gallery", EMBEDDINGS, [(name, "all") for name in TYPES])
    fit(shop, "linear")
    photos = audited(shop, ["dress"], {UNALTERED: [DRESS], FLIPPED: [DRESS]})
    with pytest.raises(HeadError, match="items of 'type' have several"):
        target_of(shop, photos)


def test_photos_without_a_label_of_the_target_are_left_out(gallery: Gallery) -> None:
    photos = audited(gallery, ["dress", "dress"], {UNALTERED: [DRESS] * 2, FLIPPED: [DRESS] * 2})
    some = replace(photos, items=(photos.items[0], replace(photos.items[1], labels={"size": ("M",)})))
    found = target_of(gallery, some)
    assert found["queries"] == 1
    assert found["heads"]["linear"]["conditions"][0]["photos"] == found["neighbours"][0]["photos"] == 1
    none = replace(photos, items=tuple(replace(item, labels={}) for item in photos.items))
    with pytest.raises(HeadError, match="of these none has one"):
        target_of(gallery, none)


# Neighbours


def test_neighbours_before_and_after(gallery: Gallery) -> None:
    photos = audited(gallery, ["dress", "dress"], {UNALTERED: [DRESS, DRESS], FLIPPED: [DRESS, SKIRT]})
    own = find_own_rows(gallery, photos)
    assert own.tolist() == [-1, -1]
    found = find_neighbours(gallery, photos, own)
    # The query looks like an item, which is its nearest; the types lie far apart.
    assert found[UNALTERED][:, 0].tolist() == [DRESS, DRESS]
    assert measure_neighbours(photos, found) == [
        {"condition": FLIPPED, "photos": 2, "overlap_at_10": 0.5, "rank_biased_overlap": 0.5, "first_kept": 0.5}
    ]
    hits = target_of(gallery, photos)["neighbours"][0]
    assert (hits["hit_rate_at_1_unaltered"], hits["hit_rate_at_1"], hits["hit_rate_at_1_difference"]) == (1, 0.5, -0.5)


def test_an_item_is_not_its_own_neighbour_by_id_or_by_photo(gallery: Gallery) -> None:
    photos = audited(gallery, [TYPES[4], TYPES[4]], {UNALTERED: [4, 4], FLIPPED: [4, 4]})
    # make_store gives each photo this hash.
    twins = replace(
        photos,
        items=(replace(photos.items[0], item_id="i00004"), photos.items[1]),
        hashes=("another", "hash of i00004"),
    )
    own = find_own_rows(gallery, twins)
    assert own.tolist() == [4, 4]
    rows = find_neighbours(gallery, twins, own)[UNALTERED]
    expected = np.argsort(-(EMBEDDINGS @ EMBEDDINGS[4]), kind="stable")[1:11]
    assert rows.tolist() == [expected.tolist()] * 2


def test_a_gallery_of_fewer_than_ten(tmp_path: Path) -> None:
    small = make_gallery(tmp_path / "gallery", EMBEDDINGS[:3], TYPES[:3])
    photos = audited(small, TYPES[:1], {UNALTERED: [0], FLIPPED: [0]}, ids="i")
    rows = find_neighbours(small, photos, find_own_rows(small, photos))[UNALTERED][0]
    assert sorted(rows[:2]) == [1, 2]
    assert (rows[2:] == -1).all()
    assert measure_neighbours(photos, find_neighbours(small, photos, np.array([0])))[0]["overlap_at_10"] == 1


# Photos


def draw(garment: Any, backdrop: Any, seed: int) -> bytes:
    """A garment of a colour before a backdrop of another, noise in both; as a PNG file."""
    rng = np.random.default_rng(seed)
    pixels = np.array(backdrop) + rng.integers(-9, 10, (64, 48, 3))
    pixels[18:46, 14:34] = np.array(garment) + rng.integers(-9, 10, (28, 20, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


COLOURS = ((200, 40, 40), (40, 170, 60), (50, 60, 210))


def world(count: int, told_by: str, *, first: int = 0) -> list[CatalogItem]:
    """Photos of three labels that the colour of the garment tells, or that of the background; the other is chance."""
    items = []
    for number in range(first, first + count):
        label = number % 3
        plain = (90, 90, 90) if told_by == "garment" else (200, 190, 40)
        other = np.array(plain) + 20 * np.random.default_rng(number).integers(-2, 3, 3)
        colours: tuple[Any, Any] = (COLOURS[label], other) if told_by == "garment" else (other, COLOURS[label])
        items.append(CatalogItem(f"w{number:04}", draw(*colours, number), labels={"type": (NAMES[label],)}))
    return items


def gallery_of(folder: Path, items: list[CatalogItem]) -> Gallery:
    encoder = FakeEncoder()
    embeddings = encoder.encode(np.stack([read_pixels(item.image, CARD.image_size) for item in items]))
    opened = reopen(make_store(folder, embeddings, items).folder)
    list(fit_gallery(opened, ["type"], FitOptions(kinds=("linear",))))
    return opened


@pytest.fixture(scope="module", params=["garment", "background"])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, str]:
    """An audit of a world: what tells its labels, the figures, and the page."""
    shop = gallery_of(tmp_path_factory.mktemp("planted") / "gallery", world(60, request.param))
    items = world(30, request.param, first=1000)
    alterer = Alterer(items, ["type"], list(CONDITIONS), CARD.image_size)
    photos = encode_conditions(items, alterer, [FakeEncoder()])
    figures = target_of(shop, photos)
    near = measure_neighbours(photos, find_neighbours(shop, photos, find_own_rows(shop, photos)))
    page = render_audit(photos, alterer, near, [figures], title="Audit", facts={}, remarks=["<b>a remark</b>"])
    return request.param, figures, page


def test_a_planted_shortcut_is_told_from_none(planted: tuple[str, Any, str]) -> None:
    told_by, figures, _ = planted
    head = figures["heads"]["linear"]
    found = {one["condition"]: one for one in head["conditions"]}
    # Either way it is right: accuracy does not tell the two apart.
    assert head["accuracy"] > 0.95
    assert all(found[name]["photos"] == 30 for name in CONDITIONS)
    if told_by == "background":
        assert found[ALONE]["accuracy"] > 0.9
        assert found[ALONE]["verdict"].startswith("The background tells the label: ")
        # Before another label's background the answer is that label's.
        assert found[REPLACED]["accuracy"] < 0.1
        assert found[REPLACED]["is_shown"]
        assert found[REPLACED]["verdict"].endswith("It goes by more than the garment: another background misleads it.")
    else:
        assert found[ALONE]["accuracy"] < 0.5
        assert found[ALONE]["verdict"].startswith("No sign that the background tells the label: ")
        assert found[REPLACED]["accuracy"] > 0.9
        assert not found[REPLACED]["is_shown"]
    # A histogram does not see left from right.
    assert found[FLIPPED]["accuracy_difference"] == 0


def test_the_page_says_so(planted: tuple[str, Any, str]) -> None:
    told_by, figures, text = planted
    page = Page(text)
    head = figures["heads"]["linear"]
    verdicts = {one["condition"]: one["verdict"] for one in head["conditions"]}
    assert page.texts("p", "summary") == [verdicts[ALONE]]
    said = page.texts("li")
    assert "<b>a remark</b>" in said
    assert set(verdicts.values()) - {verdicts[ALONE]} <= set(said)
    assert [row[-1] for row in page.rows("conditions") if row[0] == ALONE] == [
        "tells the label" if told_by == "background" else "no sign"
    ]
    # Eight views of one photo explain the conditions.
    assert text.count("<img") > 8
    assert text.count("photo cannot be read") == 0
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_the_labels_that_lose_most_come_first_and_rare_ones_last(gallery: Gallery) -> None:
    labels = ["skirt"] * 6 + ["dress"] * 6 + ["NA"] * 3
    before = [SKIRT] * 6 + [DRESS] * 6 + [NA] * 3
    # Darkened, a skirt, three dresses and all three NA are lost. That skirts say nothing without the garment is not.
    after = [DRESS, *[SKIRT] * 5, *[SKIRT] * 3, *[DRESS] * 3, *[DRESS] * 3]
    photos = audited(gallery, labels, {UNALTERED: before, DARKENED: after, ALONE: [DRESS] * 12 + [NA, NA, None]})
    figures, own = target_of(gallery, photos), find_own_rows(gallery, photos)
    near = measure_neighbours(photos, find_neighbours(gallery, photos, own))
    alterer = Alterer(photos.items, ["type"], [DARKENED, ALONE], 32)
    page = Page(render_audit(photos, alterer, near, [figures], title="Audit", facts={}, remarks=[]))
    assert [row[0] for row in page.rows("losses")[1:]] == ["dress 6", "skirt 6", "NA 3"]
    assert [row[1:] for row in page.rows("losses")[1:]] == [["-50", "+0"], ["-17", "-100"], ["-100", "+0"]]
    # Beside each photo stands what it has become, which darkened is another one.
    cases = figures["heads"]["linear"]["conditions"][0]["cases"]
    shown = {one["alt"]: one["src"] for one in page.all("img")}
    assert len(cases) == 7
    for case in cases:
        assert shown[f"{case['item_id']}, {UNALTERED}"] != shown[f"{case['item_id']}, {DARKENED}"]


def test_photos_are_encoded_as_the_gallery_s_are_and_the_same_each_time() -> None:
    items = world(13, "garment")
    boxed = [replace(item, box=Box(0.1, 0.1, 0.7, 0.8)) for item in items[:3]]
    every = [*boxed, *items[3:], CatalogItem("torn", b"no photo", labels={"type": ("dress",)})]
    done: list[tuple[int, int | None, int]] = []
    made = []
    for workers in (1, 2):
        alterer = Alterer(every, ["type"], list(CONDITIONS), CARD.image_size, workers=workers)
        encoder = FakeEncoder(workers=workers)
        made.append(encode_conditions(every, alterer, [encoder], progress=lambda *so_far: done.append(so_far)))
    first, second = made
    assert done[:14] == [(number, 14, number) for number in range(1, 15)]
    assert (first.unreadable, len(first.items)) == (1, 13)
    assert first.hashes[0] == content_hash_of(every[0].image)  # type: ignore[arg-type]
    # Of 64 x 48 pixels the middle 80 % is filled, from row 6 and column 5 on, which covers the garment.
    np.testing.assert_allclose(first.boxes[5], [5 / 48, 6 / 64, 38 / 48, 52 / 64, np.log(48 / 64)], atol=1e-6)
    looks, again = (one.embeddings[CARD.fingerprint] for one in made)
    plain = FakeEncoder().encode(np.stack([read_pixels(item.image, 32, box=item.box) for item in every[:13]]))
    np.testing.assert_array_equal(looks[UNALTERED], plain)
    for name in (UNALTERED, *CONDITIONS):
        np.testing.assert_array_equal(looks[name], again[name])
        np.testing.assert_array_equal(first.present[name], second.present[name])
        assert (np.linalg.norm(looks[name], axis=1) > 0.5).tolist() == first.present[name].tolist()


def test_a_garment_is_looked_for_in_its_box() -> None:
    # In the corner of a floor of many greens, where nobody would look without the box.
    rng = np.random.default_rng(0)
    pixels = np.stack([rng.integers(low, high, (128, 128)) for low, high in ((20, 90), (90, 200), (10, 45))], axis=2)
    garment = np.zeros((128, 128), bool)
    garment[84:116, 88:118] = True
    pixels[garment] = np.stack(
        [rng.integers(low, high, garment.sum()) for low, high in ((150, 250), (10, 60), (75, 125))], 1
    )
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    item = CatalogItem("boxed", file.getvalue(), labels={"type": ("dress",)}, box=Box(0.625, 0.625, 0.375, 0.375))
    photo_of_box, _ = Alterer([item], ["type"], [MASKED], 128).read(item)
    inside = garment[80:, 80:]
    assert photo_of_box.pixels.shape == (48, 48, 3)
    assert (photo_of_box.mask & inside).sum() > 0.8 * (photo_of_box.mask | inside).sum()


def test_other_seeds_draw_otherwise() -> None:
    items = world(12, "garment")
    views = [Alterer(items, ["type"], [TAGGED], 32, seed=seed).view(items[0], TAGGED) for seed in range(6)]
    assert len({view.tobytes() for view in views if view is not None}) > 1
    # Nor do all photos get the same tag in the same corner.
    alterer = Alterer(items, ["type"], [TAGGED], 32)
    views = [alterer.view(replace(items[0], item_id=f"x{number}"), TAGGED) for number in range(6)]
    assert len({view.tobytes() for view in views if view is not None}) > 1


def test_a_photo_shows_another_label_s_background(monkeypatch: pytest.MonkeyPatch) -> None:
    items = world(12, "background")
    alterer = Alterer(items, ["type"], [REPLACED], 32)
    for number, item in enumerate(items):
        view = alterer.view(item, REPLACED)
        assert view is not None
        edge = view[:5].mean(axis=(0, 1))
        nearest = int(np.argmin([np.abs(edge - np.array(colour)).sum() for colour in COLOURS]))
        assert nearest != number % 3
    # With two targets the one is asked that shares a label in neither: of the second type, which alone has size L.
    sized = [
        replace(item, labels={**item.labels, "size": ("L" if number % 3 == 1 else "M",)})
        for number, item in enumerate(items)
    ]
    alterer = Alterer(sized, ["type", "size"], [REPLACED], 32)
    for item in (*sized[0::3], *sized[2::3]):
        view = alterer.view(item, REPLACED)
        assert view is not None
        assert np.abs(view[:5].mean(axis=(0, 1)) - np.array(COLOURS[1])).max() < 15
    # Where all have one label, nobody lends.
    alike = [item for number, item in enumerate(items) if number % 3 == 0]
    assert Alterer(alike, ["type"], [REPLACED], 32).view(alike[0], REPLACED) is None
    # A single lender serves those of the two other labels.
    monkeypatch.setattr(audit_photos, "_LENDERS", 1)
    monkeypatch.setattr(audit_photos, "CHUNK", 1)
    single = Alterer(items, ["type"], [REPLACED], 32)
    assert sum(single.view(item, REPLACED) is None for item in items) == 4


def test_a_photo_without_a_garment_is_left_out_of_the_background() -> None:
    plain = [CatalogItem(f"p{n}", photo(n), labels={"type": ("dress",)}) for n in range(3)]
    some = [*world(4, "garment"), *plain]
    photos = encode_conditions(some, Alterer(some, ["type"], [MASKED, FLIPPED], 32), [FakeEncoder()])
    assert photos.without_garment == 3
    assert photos.present[MASKED].tolist() == [True] * 4 + [False] * 3
    assert photos.present[FLIPPED].all()
    with pytest.raises(AuditError, match=r"No garment was found in any of 3 photos.* --conditions flipped"):
        encode_conditions(plain, Alterer(plain, ["type"], [MASKED, FLIPPED], 32), [FakeEncoder()])
    # Where nothing is asked of the background, no garment is looked for.
    photos = encode_conditions(plain, Alterer(plain, ["type"], [FLIPPED], 32), [FakeEncoder()])
    assert photos.without_garment == 0


def test_photos_of_which_none_can_be_read() -> None:
    torn = [CatalogItem(f"t{n}", b"no photo", labels={"type": ("dress",)}) for n in range(3)]
    with pytest.raises(AuditError, match="of 3 none can be read, item 't0' first"):
        encode_conditions(torn, Alterer(torn, ["type"], list(OF_BACKGROUND), 32), [FakeEncoder()])


# Queries


def test_queries_are_a_sample_of_labelled_photos() -> None:
    items = [CatalogItem(f"c{n}", b"", labels={"type": ("a",)} if n % 2 else {"size": ("M",)}) for n in range(80)]
    drawn = choose_queries(catalog_of(items), ["type"], 15)
    assert len(drawn) == 15
    assert all(item.labels.get("type") for item in drawn)
    assert choose_queries(catalog_of(items), ["type"], 15) == drawn
    assert choose_queries(catalog_of(items), ["type"], 15, seed=1) != drawn
    assert choose_queries(catalog_of(items), ["type"], 1000) == items[1::2]
    assert len(choose_queries(catalog_of(items), ["type", "size"], 1000)) == 80
    with pytest.raises(AuditError, match="catalog has 80 photos, and none with a label of colour or fit"):
        choose_queries(catalog_of(items), ["colour", "fit"], 15)
    with pytest.raises(AuditError, match="takes 10 photos or more, or its figures say nothing; got a limit of 9"):
        choose_queries(catalog_of(items), ["type"], 9)


def test_own_queries_are_those_that_teach_no_head_where_there_are_enough(tmp_path: Path) -> None:
    def split_of(tests: int) -> Any:
        return lambda number: "test" if number < tests else "train"

    ten = make_gallery(tmp_path / "ten", EMBEDDINGS, TYPES, split=split_of(10))
    assert {item.item_id for item in choose_own_queries(ten, ["type"], 50)} == {f"i{n:05}" for n in range(10)}
    nine = make_gallery(tmp_path / "nine", EMBEDDINGS, TYPES, split=split_of(9))
    assert len(choose_own_queries(nine, ["type"], 50)) == 50
    plain = make_gallery(tmp_path / "plain", EMBEDDINGS, [None, *TYPES[1:]])
    own = choose_own_queries(plain, ["type"], 1000)
    assert [item.item_id for item in own] == [f"i{n:05}" for n in range(1, 60)]
