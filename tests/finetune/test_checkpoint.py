from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from finetune.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


def test_tensors_and_position_come_back(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3).t(), "b.c": torch.tensor(7), "n": torch.ones(2, dtype=torch.bfloat16)}
    save_checkpoint(tmp_path / "x.safetensors", tensors, {"epoch": 3, "loss": 0.1 + 0.2, "who": "Zoë"})
    loaded, position = load_checkpoint(tmp_path / "x.safetensors")
    assert position == {"epoch": 3, "loss": 0.1 + 0.2, "who": "Zoë"}
    assert list(loaded) == ["a", "b.c", "n"]
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype


def test_a_position_may_be_absent(tmp_path):
    save_checkpoint(tmp_path / "x.safetensors", {"a": torch.zeros(1)})
    assert load_checkpoint(tmp_path / "x.safetensors")[1] == {}


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.zeros(3)}, {"epoch": 1})

    def full(self, content):
        # Half of it goes to the disk before that is full.
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CheckpointError, match=r"x.safetensors \(0 MB\) could not be written: No space left.*--resume"):
        save_checkpoint(path, {"a": torch.ones(3)}, {"epoch": 2})
    monkeypatch.undo()
    assert load_checkpoint(path)[1] == {"epoch": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("keep", [0, 5, 60])
def test_a_damaged_checkpoint_is_refused(tmp_path, keep):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.zeros(30)}, {"epoch": 1})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"cannot be read.*Train again into a new folder"):
        load_checkpoint(path)
