"""What a run leaves at its end."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from finetune.run_folder import open_run
from finetune.run_readme import readme
from finetune.run_report import figures, softmax, write_report
from tests.finetune.runs import LABELS, logits_of, make_epoch, make_plan, make_trained

Y, SAID = (0, 0, 1, 2, -1), (0, 1, 1, 1, 2)


@pytest.fixture
def written(tmp_path):
    """The folder of a run that was right about two of four photos, and its card."""
    folder = tmp_path / "my run"
    plan = make_plan(validation=Y)
    config = open_run(folder, plan)
    (folder / "best.safetensors").write_bytes(b"x" * 4321)
    epochs = [make_epoch(1, 0.25, best=True), make_epoch(2, 0.5, stage=2, best=True), make_epoch(3, 0.4, stage=2)]
    return folder, write_report(folder, plan, make_trained(epochs, SAID, Y), config)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_figures_by_hand():
    own = figures(logits_of(SAID), np.array(Y))
    # Of four labelled photos the first and the third are right.
    assert (own["photos"], own["accuracy"]) == (4, 0.5)
    # jeans: found 1 of 2, precise 1 of 1; shirt: 1 of 1, 1 of 3; skirt: 0 of 1, never said.
    assert own["macro_precision"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert own["macro_recall"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert own["macro_f1"] == pytest.approx((2 / 3 + 0.5 + 0) / 3)
    # Wilson with z = 1.96 for 2 of 4.
    assert (own["accuracy_low"], own["accuracy_high"]) == pytest.approx((0.150, 0.850), abs=1e-3)
    # All are as sure: e^4 / (e^4 + 2), and half of them right.
    sure = math.exp(4) / (math.exp(4) + 2)
    assert own["calibration_error_before"] == pytest.approx(sure - 0.5)
    assert own["log_loss"] == pytest.approx(-(2 * math.log(sure) + 2 * math.log((1 - sure) / 2)) / 4)


def test_softmax_stands_large_logits():
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4], [-1e4, 0]], np.float32)), [[0.5, 0.5], [0, 1]])


def test_validation_photos_one_by_one(written):
    header, *rows = rows_of(written[0] / "validation.csv")
    assert header == ["item_id", "type", "type predicted", "type probability"]
    assert rows[1] == ["v-1", "jeans", "shirt", "0.9647"]
    # Without a label that is learned.
    assert rows[4][:3] == ["v-4", "", "skirt"]


def test_confusions_as_table_and_pictures(written):
    folder, _ = written
    assert rows_of(folder / "confusion-type.csv") == [
        ["true label", *LABELS],
        ["jeans", "1", "1", "0"],
        ["shirt", "0", "1", "0"],
        ["skirt", "0", "1", "0"],
    ]
    raw, normalised = (folder / f"confusion-type{end}.png" for end in ("", "-normalised"))
    assert raw.read_bytes() != normalised.read_bytes()


def test_the_card_says_what_it_is(written):
    folder, card = written
    assert json.loads((folder / "card.json").read_text()) == card
    wanted = {"kind": "comparator", "recipe": "own", "network": "simple-cnn", "bytes": 4321, "best_epoch": 2}
    wanted |= {"train_photos": 6, "validation_photos": 5, "left_out": 3, "epochs": 3, "seed": 0, "stopped": ""}
    # 100 photos in 4 seconds, three times; validation is not counted.
    wanted |= {"device": "cpu", "precision": "fp32", "photos_per_second": 25.0, "seconds": 15.0}
    # The backbone's, and 3 x 128 weights with 3 biases.
    wanted |= {"parameters": 1000 + 387, "unreadable": {"t-5": "The file is empty."}}
    assert {key: card[key] for key in wanted} == wanted
    of = card["targets"]["type"]
    assert of["labels"]["jeans"] == {"train": 3, "validation": 2}
    assert (of["rare"], of["figures"]["accuracy"]) == ({"fez": 1}, 0.5)
    assert {"python", "torch", "transformers", "modiste"} <= set(card["versions"])
    assert [stage["learned_parameters"] for stage in card["stages"]] == [10, 20]


def test_the_readme_says_what_was_run_and_how_it_went(written):
    folder, _ = written
    page = (folder / "README.md").read_text()
    for sentence in (
        "The best epoch, 2 of 3, is right on 50.0 % of the validation photos.",
        "```\nmodiste finetune /photos --targets type --out 'my run'\n```",
        "6 to learn from, 5 to validate with; 3 left out",
        "3 left out: beyond a --limit, of the split `test` or without a label that is learned.",
        "Too rare to learn in `type`: `fez` (1).",
        "Could not be read: `t-5` (The file is empty).",
        "| `type` | 3 | 4 | 0.500 | 0.150 to 0.850 |",
        "| 2 | 2 | 1.0000 | 0.4000 | 0.7500 | 0.5000 | 1e-07 | 5.0 | best |",
        "| 1 | classifier | 1 |",
        f"modiste index CATALOG --gallery GALLERY --encoder '{folder}'",
        f"modiste fit --gallery GALLERY --run '{folder}'",
        f"modiste compare --gallery GALLERY --run '{folder}' --targets type",
        # One photo each was mistaken.
        "No mistake was made twice.",
    ):
        assert sentence in page
    assert "(<confusion-type-normalised.png>)" in page


def test_the_commonest_confusions_come_first_and_names_stay_names(written):
    folder, card = written
    config = json.loads((folder / "config.json").read_text())
    epochs = [make_epoch(1, 0.5), make_epoch(2, 0.5)]
    strange = {"a|`b`": {"train": 1, "validation": 9}, "c": {"train": 1, "validation": 9}}
    of = {**card["targets"]["type"], "labels": strange}
    card = {**card, "targets": {"x|y": of}, "stopped": "No epoch was better."}
    page = readme(folder, card, config, epochs, {"x|y": np.array([[5, 2], [4, 5]])})
    assert page.index("4 of 9 photos of `c` were taken for `a|'b'`.") < page.index("2 of 7 photos of `a|'b'`")
    # A bar would end a table's cell.
    assert "| `x\\|y` |" in page
    assert "validation photos. No epoch was better." in page
    assert "confusion-x%257Cy-normalised.png" in page


def test_several_targets_are_named_and_their_mean_is_called_one(written):
    folder, card = written
    config = json.loads((folder / "config.json").read_text())
    of = card["targets"]["type"]
    page = readme(
        folder,
        {**card, "targets": dict.fromkeys(("a", "b", "c"), of)},
        config,
        [make_epoch(1, 0.5), make_epoch(2, 0.5)],
        dict.fromkeys(("a", "b", "c"), np.eye(3, dtype=np.int64)),
    )
    assert page.startswith("# A comparator for `a`, `b` and `c`\n")
    assert "(a mean over targets)" in page


def test_a_report_is_written_again_over_the_first(written):
    folder, card = written
    plan = make_plan(validation=Y)
    epochs = [make_epoch(1, 1.0, best=True)]
    again = write_report(folder, plan, make_trained(epochs, Y[:4], Y[:4]), {"catalog": "/photos", "command": "modiste"})
    assert again["targets"]["type"]["figures"]["accuracy"] == 1
    assert rows_of(folder / "confusion-type.csv")[1] == ["jeans", "2", "0", "0"]
    assert card != again
