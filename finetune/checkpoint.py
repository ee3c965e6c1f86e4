"""Checkpoints: one safetensors file that training goes on from, in which everything is of the same moment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from indexer.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

_KEY = "modiste"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or none that training can go on from."""


def save_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], position: Mapping[str, Any] | None = None) -> None:
    """Writes tensors, and where training stands, in one step; until then the file before stays whole.

    Args:
        path: Of the file.
        tensors: By name.
        position: JSON-ready.

    Raises:
        CheckpointError: The disk is full, or refuses otherwise.
    """
    content = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        None if position is None else {_KEY: json.dumps(position)},
    )
    try:
        replace_file(path, content)
    except OSError as error:
        raise CheckpointError(
            f"{path} ({len(content) / 2**20:.0f} MB) could not be written: {error.strerror}. The checkpoint before "
            "stands; make room and go on with --resume."
        ) from error


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `save_checkpoint` wrote: the tensors, and where training stands (empty where it was not said).

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            position = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, position  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Train again into a new folder.") from error
