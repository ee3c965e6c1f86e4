from __future__ import annotations

import pytest
import torch

from finetune.networks import build_comparator
from finetune.recipe import Recipe, Stage
from finetune.schedule import open_stage, rate_factor, set_rates

STAGE = Stage(1)


def recipe(**values) -> Recipe:
    return Recipe("r", "", (STAGE,), **values)


def test_rates_rise_in_a_line_and_fall_as_half_a_cosine():
    factors = [rate_factor(step, 10, recipe(warmup=0.2)) for step in range(10)]
    # Two steps up; then (1 + cos(pi * k / 8)) / 2 for k = 0 to 7.
    assert factors == pytest.approx([0.5, 1, 1, 0.96194, 0.85355, 0.69134, 0.5, 0.30866, 0.14645, 0.03806], abs=1e-5)


def test_a_constant_schedule_stays_up():
    assert [rate_factor(step, 4, recipe(warmup=0.5, schedule="constant")) for step in range(4)] == [0.5, 1, 1, 1]


def test_without_warm_up_the_first_step_has_the_whole_rate():
    assert rate_factor(0, 1, recipe(warmup=0)) == 1


@pytest.fixture
def comparator():
    return build_comparator("simple-cnn", {"type": ["a", "b"]}, weights="scratch", seed=0)


def test_groups_have_their_rates_and_decay(comparator):
    optimizer = open_stage(comparator, recipe(rate=0.01, head_rate=0.1, weight_decay=0.3), STAGE)
    decay, plain, heads = optimizer.param_groups
    assert [group["lr"] for group in (decay, plain, heads)] == [0.01, 0.01, 0.1]
    assert [group["weight_decay"] for group in (decay, plain, heads)] == [0.3, 0, 0.3]
    assert all(parameter.ndim > 1 for parameter in decay["params"])
    assert all(parameter.ndim == 1 for parameter in plain["params"])
    set_rates(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.005, 0.005, 0.05]
    set_rates(optimizer, 1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01, 0.1]


def test_a_stage_may_have_rates_of_its_own_and_a_closed_backbone(comparator):
    optimizer = open_stage(comparator, recipe(), Stage(1, blocks=0, rate=0.5, head_rate=0.7))
    assert [group["lr"] for group in optimizer.param_groups] == [0.7]
    optimizer = open_stage(comparator, recipe(optimizer="sgd"), Stage(1, blocks=1, rate=0.5))
    assert isinstance(optimizer, torch.optim.SGD)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5, 3e-3]
