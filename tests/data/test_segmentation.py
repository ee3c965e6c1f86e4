"""Masks by a segmentation network: a tiny one of random weights, and one whose answer is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from data.background import box_mask
from data.catalog import Box
from data.segmentation import SegmentationError, SegmentationNetwork, kept_classes

LABELS = ("Background", "Hat", "Hair", "Upper-clothes", "Left-leg")
VOC = {number: f"LABEL_{number}" for number in range(21)}
PROCESSOR = {
    "size": {"height": 64, "width": 64},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def write_network(folder, labels=LABELS, **changes):
    """A network of a few thousand random weights, as save_pretrained writes it."""
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    network = SegformerForSemanticSegmentation(config)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **changes}))
    return network.eval()


def biased(folder, class_index):
    """Has a network answer one class everywhere."""
    weights = load_file(folder / "model.safetensors")
    weights["decode_head.classifier.bias"][class_index] += 1000
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def pixels(height=48, width=96):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_mask_is_that_of_the_network_at_the_photo_size(tmp_path):
    network = write_network(tmp_path)
    photo = pixels(32, 64)
    # 64 x 32 is the size that the preprocessor asks for, a multiple of 32: nothing is scaled, so the network's answer
    # on plainly normalised pixels must be ours.
    normal = (
        torch.from_numpy(photo).permute(2, 0, 1).float() / 255 - torch.tensor(PROCESSOR["image_mean"])[:, None, None]
    )
    with torch.no_grad():
        logits = network((normal / torch.tensor(PROCESSOR["image_std"])[:, None, None])[None]).logits
        classes = torch.nn.functional.interpolate(logits, (32, 64), mode="bilinear").argmax(1)[0].numpy()
    clothes = SegmentationNetwork(str(tmp_path), "clothes")(photo)
    person = SegmentationNetwork(str(tmp_path), "person")(photo)
    np.testing.assert_array_equal(clothes, np.isin(classes, (1, 3)))
    np.testing.assert_array_equal(person, classes != 0)
    assert 0 < person.mean() < 1 or 0 < clothes.mean() < 1


@pytest.mark.parametrize(
    ("answer", "keep", "kept"), [(0, "person", False), (2, "person", True), (2, "clothes", False), (3, "clothes", True)]
)
def test_classes_decide(tmp_path, answer, keep, kept):
    write_network(tmp_path)
    biased(tmp_path, answer)
    mask = SegmentationNetwork(str(tmp_path), keep)(pixels(50, 33))
    assert mask.shape == (50, 33)
    assert (mask == kept).all()


def test_nothing_outside_the_box_is_kept(tmp_path):
    write_network(tmp_path)
    biased(tmp_path, 3)
    box = Box(0.25, 0.5, 0.5, 0.25)
    np.testing.assert_array_equal(SegmentationNetwork(str(tmp_path))(pixels(), box), box_mask(box, 48, 96))


def test_channels_are_turned_round_and_values_left_where_the_preprocessor_says_so(tmp_path):
    write_network(tmp_path, do_flip_channel_order=True, do_normalize=False)
    network = SegmentationNetwork(str(tmp_path))
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    prepared = network._prepare(red)
    assert prepared.shape == (1, 3, 64, 64)
    assert prepared.amax((0, 2, 3)).tolist() == [0.0, 0.0, 1.0]


def test_a_photo_keeps_its_proportions(tmp_path):
    write_network(tmp_path, size={"shortest_edge": 128})
    network = SegmentationNetwork(str(tmp_path))
    assert network._prepare(pixels(300, 600)).shape == (1, 3, 64, 128)
    # A thread of a photo is no thinner than the network's step.
    assert network._prepare(pixels(2, 600)).shape == (1, 3, 32, 128)


@pytest.mark.parametrize(
    ("labels", "keep", "numbers"),
    [
        (dict(enumerate(LABELS)), "clothes", [1, 3]),
        (dict(enumerate(LABELS)), "person", [1, 2, 3, 4]),
        ({0: "background", 1: "torso-skin", 2: "Left_arm", 3: "Right shoe", 4: "Scarf"}, "clothes", [3, 4]),
        ({0: "wall", 1: "person", 2: "chair"}, "person", [1]),
        (VOC, "person", [15]),
    ],
)
def test_which_classes_are_kept(tmp_path, labels, keep, numbers):
    assert kept_classes(labels, keep, tmp_path) == numbers


@pytest.mark.parametrize(
    ("labels", "keep"),
    [
        ({0: "wall", 1: "chair"}, "person"),
        ({0: "wall", 1: "person"}, "clothes"),
        (VOC, "clothes"),
        ({0: "LABEL_0", 1: "LABEL_1"}, "person"),
    ],
)
def test_a_network_without_such_classes_is_refused(tmp_path, labels, keep):
    with pytest.raises(SegmentationError, match=rf"tells {keep} apart was wanted; .* tells apart .*--method grabcut"):
        kept_classes(labels, keep, tmp_path)


def test_weights_that_are_not_at_hand_name_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SegmentationError, match=r"'owner/none' are not on this machine.*grabcut.*--network FOLDER"):
        SegmentationNetwork("owner/none", download=False)
    for name in (str(tmp_path / "none"), "none", "./a"):
        with pytest.raises(SegmentationError, match=r"there is no folder .*grabcut"):
            SegmentationNetwork(name, download=False)


def test_a_hub_that_cannot_be_reached_is_said(tmp_path, monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def snapshot_download(name, **options):
        asked.append(options.get("local_files_only", False))
        raise LocalEntryNotFoundError("no way to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(
        SegmentationError, match=r"'owner/none' are not on this machine, and the hub could not be reached"
    ):
        SegmentationNetwork("owner/none")
    assert asked == [True, False]


def test_folders_that_are_no_segmentation_network(tmp_path):
    write_network(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "dinov2"}))
    with pytest.raises(SegmentationError, match=r"of the kinds segformer, .* was wanted; .* holds dinov2"):
        SegmentationNetwork(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(SegmentationError, match=r"config.json should hold a JSON object"):
        SegmentationNetwork(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(SegmentationError, match=r"needs .*config.json, which cannot be read"):
        SegmentationNetwork(str(tmp_path))


def test_weights_that_are_damaged_pickled_or_of_another_network(tmp_path):
    write_network(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    body = {key: value for key, value in weights.items() if not key.startswith("decode_head.")}
    save_file(body, file, {"format": "pt"})
    with pytest.raises(
        SegmentationError, match=r"lacks \d+ weights of a SegformerForSemanticSegmentation, decode_head"
    ):
        SegmentationNetwork(str(tmp_path))
    file.write_bytes(b"no weights")
    with pytest.raises(SegmentationError, match=r"cannot be loaded: "):
        SegmentationNetwork(str(tmp_path))
    torch.save(weights, tmp_path / "pytorch_model.bin")
    file.unlink()
    with pytest.raises(SegmentationError, match=r"has no model.safetensors; pickled weights are not opened"):
        SegmentationNetwork(str(tmp_path))
