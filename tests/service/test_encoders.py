"""The encoders of a state: each loaded once, by whoever asks first, and let go of when nothing needs it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from indexer.encoders import EncoderCard, EncoderError, prepare_encoder
from service import encoders
from service.batching import BatchingEncoder
from service.encoders import Encoders, load_serving_encoder, load_serving_patch_encoder
from tests.indexer.fakes import CARD, FakeEncoder
from tests.service.runs import make_run

ROOT = Path(__file__).parents[2]
OTHER = replace(CARD, weights_sha256="1" * 64)


def test_one_load_however_many_ask() -> None:
    loads: list[EncoderCard] = []

    def load(card: EncoderCard) -> FakeEncoder:
        loads.append(card)
        time.sleep(0.05)
        return FakeEncoder(card)

    pool = Encoders(load)
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(pool.get, [CARD] * 8))
    assert len(loads) == 1
    assert all(one is got[0] for one in got)
    # A card's name is no part of what it is.
    assert pool.get(replace(CARD, name="elsewhere")) is got[0]
    assert pool.get(OTHER).card == OTHER
    assert loads == [CARD, OTHER]


def test_a_load_that_failed_is_tried_again() -> None:
    results = iter([EncoderError("gone"), FakeEncoder()])

    def load(_: EncoderCard) -> FakeEncoder:
        result = next(results)
        if isinstance(result, EncoderError):
            raise result
        return result

    pool = Encoders(load)
    with pytest.raises(EncoderError, match="gone"):
        pool.get(CARD)
    assert pool.get(CARD).card == CARD


def test_what_is_not_kept_is_loaded_anew_and_its_thread_ends() -> None:
    def load(card: EncoderCard) -> FakeEncoder:
        encoder = FakeEncoder(card)
        encoder.batches = True
        return encoder

    before = threading.active_count()
    pool = Encoders(load)
    first, second = pool.get(CARD), pool.get(OTHER)
    assert isinstance(first, BatchingEncoder)
    pool.keep([OTHER.fingerprint])
    assert threading.active_count() == before + 1
    assert pool.get(OTHER) is second
    # Who still holds it is answered.
    assert first.encode(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 24)
    assert pool.get(CARD) is not first
    pool.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("load", [load_serving_encoder, load_serving_patch_encoder])
def test_weights_that_are_others_now_are_refused_before_the_work(
    load: Callable[[EncoderCard], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    card = prepare_encoder(str(run), pooling="mean", runtime="openvino", precision="fp32").card
    tensors = load_file(run / "best.safetensors")
    save_file(tensors | {"heads.colour.bias": np.ones(3, np.float32)}, run / "best.safetensors")
    monkeypatch.setattr(encoders, "is_converted", lambda *_, **__: pytest.fail("nothing is converted"))
    with pytest.raises(EncoderError, match="weights_sha256"):
        load(card)


FIRST_LOAD = """
import sys
import numpy as np
from indexer.encoders import EncoderCard
from indexer.runtimes import is_converted
from service.encoders import load_serving_patch_encoder
card = EncoderCard.from_json(sys.argv[1])
parts = load_serving_patch_encoder(card).encode_parts(np.full((1, 64, 64, 3), 90, np.uint8))[0]
assert parts.grid == (2, 2)
assert is_converted(card, maps=True)
assert not [name for name in sys.modules if name.partition(".")[0] in ("torch", "transformers")]
"""


def test_maps_are_converted_without_torch_in_this_process(tmp_path: Path) -> None:
    card = prepare_encoder(str(make_run(tmp_path / "run")), pooling="mean", runtime="openvino", precision="fp32").card
    environment = {**os.environ, "MODISTE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", FIRST_LOAD, card.to_json()]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
