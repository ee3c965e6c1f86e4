"""Every method on photos whose label hangs on a mark at a known place, through the embedded encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from indexer.encoders import load_encoder
from indexer.encoding import encode_across
from service import answers
from service.explain import Explainer, ExplainOptions, possible_methods
from service.explanation import label_answer
from service.networks import Networks
from service.saliency import ExplanationError, Subject
from tests.service.galleries import fit, load
from tests.service.planted_gallery import LABELS, make_planted_gallery, plant, subject_of

# None of them is in the gallery.
ASKED = range(1000, 1010)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("efficientnet-lite0")


@pytest.fixture(scope="module")
def gallery(encoder, tmp_path_factory):
    place = make_planted_gallery(tmp_path_factory.mktemp("planted") / "gallery", encoder)
    fit(place, "knn", "linear", "ensemble", targets=["mark"], trials=1)
    return place


@pytest.fixture(scope="module")
def networks():
    return Networks()


@pytest.fixture(scope="module")
def explain(gallery, encoder, networks):
    """Explains planted photo number n by a head, of its own label."""

    def explain(number, kind, method, **options):
        planted, fitted = plant(number, LABELS[number % 2]), load(gallery, kind, "mark")
        with encode_across(encoder, 2) as encode:
            explainer = Explainer(encoder, networks, ExplainOptions(method, **options), encode=encode)
            subject = subject_of(planted)
            return planted, explainer.label(subject, fitted, planted.label)

    return explain


@pytest.mark.parametrize(
    ("kind", "method"),
    [("knn", "occlusion"), ("linear", "occlusion"), ("ensemble", "occlusion"), ("linear", "gradcam")],
)
def test_the_peak_lies_on_the_mark(explain, kind, method):
    # A cell of the last map is 32 pixels.
    found = [explain(number, kind, method, is_checked=False) for number in ASKED]
    assert sum(planted.holds(explained.values, slack=16) for planted, explained in found) >= 9


@pytest.mark.parametrize("method", ["occlusion", "gradcam"])
def test_a_map_deletes_sooner_than_chance_and_hangs_on_the_weights(explain, method):
    # Without its disc, a tenth of the photo, the label goes at once; it bears the loss of a few random places.
    found = [explain(number, "linear", method)[1].faithfulness for number in (1000, 1002, 1004, 1006)]
    assert np.mean([one.random_deletion - one.deletion for one in found]) > 0.1
    assert np.mean([one.insertion - one.random_insertion for one in found]) > 0.3
    assert np.mean([one.sanity for one in found]) < 0.5
    whose = {"occlusion": "the head's weights", "gradcam": "the weights of network and head"}
    assert {one.randomised for one in found} == {whose[method]}


def test_a_match_adds_up_and_lies_on_the_mark(gallery, encoder, networks):
    # Two photos of one mark at two places.
    query, item = plant(2000, "stripes"), plant(2003, "stripes")
    found = Explainer(encoder, networks, ExplainOptions("match")).match(subject_of(query), subject_of(item), gallery)
    stored = encoder.encode(np.stack([found.subject.pixels, found.item.pixels]))
    assert found.score == pytest.approx(float(stored[0] @ stored[1]), abs=2e-3)
    assert found.values.sum() == pytest.approx(found.score, abs=1e-4)
    assert query.holds(found.values, slack=16)
    assert item.holds(found.match.item_map, slack=16)
    assert found.faithfulness.insertion > found.faithfulness.random_insertion
    # Both are active on the mark, whichever their channels: the check says so.
    assert 0.4 < found.faithfulness.sanity < 0.9
    assert "approximation" not in found.meaning


def test_a_relative_match_leaves_out_what_is_usual(gallery, encoder, networks):
    query, item = plant(2000, "stripes"), plant(2003, "stripes")
    options = ExplainOptions("match", is_relative=True)
    found = Explainer(encoder, networks, options).match(subject_of(query), subject_of(item), gallery)
    embedding = encoder.encode(found.subject.pixels[None])[0]
    usual = np.mean([embedding @ gallery.embedding_of(f"i{number:05}") for number in range(120)])
    assert found.values.sum() == pytest.approx(found.score - usual, abs=3e-3)
    assert query.holds(found.values, slack=16)
    # With the weights of another item it is another map; the whole shares' is much the same.
    assert abs(found.faithfulness.sanity) < 0.4
    assert found.meaning.startswith("What this place brings to the similarity beyond")


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("knn", ExplainOptions("gradcam"), r"it has no gradient\. It can be by occlusion\. Or ask a linear, MLP"),
        ("ensemble", ExplainOptions("attention"), r"is no transformer with a class token\. It can be by occlusion\.$"),
        (
            "linear",
            ExplainOptions("attention"),
            "is no transformer with a class token. It can be by occlusion, gradcam",
        ),
        ("linear", ExplainOptions("rollout"), "is no transformer with a class token. It can be by occlusion, gradcam"),
        ("linear", ExplainOptions("gradcam", layer="nothing"), "nothing"),
        ("linear", ExplainOptions(window=500), "500"),
        ("linear", ExplainOptions(window=16, stride=17), "17"),
        ("linear", ExplainOptions(fill="red"), "red"),
    ],
)
def test_what_cannot_be_explained_is_refused(gallery, encoder, networks, kind, options, sentence):
    explainer = Explainer(encoder, networks, options)
    with pytest.raises(ExplanationError, match=sentence):
        explainer.label(subject_of(plant(5)), load(gallery, kind, "mark"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "magic"}, "one of occlusion, gradcam, attention, rollout, match; got 'magic'"),
        ({"layer": "x"}, "'layer' is an option of gradcam; occlusion has none"),
        ({"method": "match", "window": 8}, "'window' is an option of occlusion; match has none"),
        ({"method": "rollout", "stride": 8}, "'stride' is an option of occlusion"),
        ({"method": "gradcam", "fill": "mean"}, "'fill' is an option of occlusion"),
        ({"method": "gradcam", "is_relative": True}, "'relative' is an option of match"),
    ],
)
def test_an_option_of_another_method_is_refused(options, sentence):
    with pytest.raises(ExplanationError, match=sentence):
        ExplainOptions(**options)


def test_a_plain_photo_has_a_flat_map_and_is_told_so(gallery, encoder, networks):
    pixels = np.full((224, 224, 3), 180, np.uint8)
    explained = Explainer(encoder, networks, ExplainOptions()).label(
        Subject(pixels, pixels), load(gallery, "linear", "mark")
    )
    assert explained.is_flat
    receipt = answers.Receipt(1, 1, "lite0", "0", "exact")
    answer = label_answer(explained, load(gallery, "linear", "mark"), gallery, receipt=receipt, with_map=False)
    assert answer.faithfulness.verdict.startswith("Nothing stands out")


def test_an_unknown_label_is_refused_with_those_there_are(gallery, encoder, networks):
    explainer = Explainer(encoder, networks, ExplainOptions())
    with pytest.raises(ExplanationError, match="has no label 'sock'; it knows disc, none, stripes"):
        explainer.label(subject_of(plant(5)), load(gallery, "linear", "mark"), "sock")


def test_work_ends_where_nobody_waits_for_it(gallery, encoder, networks):
    def gone():
        raise TimeoutError

    for method in ("occlusion", "gradcam"):
        with pytest.raises(TimeoutError):
            Explainer(encoder, networks, ExplainOptions(method), check=gone).label(
                subject_of(plant(5)), load(gallery, "linear", "mark")
            )


@pytest.mark.parametrize(
    ("name", "has_layers", "methods"),
    [
        ("efficientnet-lite0", True, ("occlusion", "gradcam", "match")),
        ("efficientnet-lite0", False, ("occlusion", "match")),
        # Weights that are not at hand.
        ("gone", True, ("occlusion",)),
    ],
)
def test_methods_are_known_before_a_network_is_loaded(encoder, name, has_layers, methods):
    assert possible_methods(replace(encoder.card, name=name), has_layers=has_layers) == methods


def test_methods_of_a_transformer(tmp_path, encoder):
    config = {"model_type": "dinov2", "patch_size": 14, "hidden_size": 32, "image_size": 56}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    card = replace(encoder.card, name=str(tmp_path))
    assert possible_methods(card, has_layers=True) == ("occlusion", "attention", "rollout", "match")
    assert possible_methods(card, has_layers=False) == ("occlusion", "rollout", "match")


def test_torch_is_not_loaded_by_the_methods_that_do_without():
    script = "import sys, service.engine, service.app, cli; assert not {'torch', 'captum'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", script], check=True)
