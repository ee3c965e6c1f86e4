"""Stages as the command line changes them."""

from __future__ import annotations

import pytest

from finetune.recipe import RecipeError, Stage, read_recipe
from finetune.stages import opening_after, with_epochs


def test_epochs_of_each_stage():
    assert [stage.epochs for stage in with_epochs(read_recipe("progressive"), "1, 2,3,4").stages] == [1, 2, 3, 4]
    changed = with_epochs(read_recipe("dressnet"), "3")
    assert changed == read_recipe("dressnet", ["stages.0.epochs=3"])


@pytest.mark.parametrize("text", ["3", "1,2,3", "1,2,3,4,5", "1,2,0,4", "1,2,-3,4", "1,2,x,4", "", "1,2,3.5,4"])
def test_other_epochs_than_one_number_a_stage_are_refused(text):
    with pytest.raises(RecipeError, match=f"recipe 'progressive' has 2,2,3,5; got '{text}'"):
        with_epochs(read_recipe("progressive"), text)


def test_a_backbone_that_opens_later():
    recipe = opening_after(read_recipe("transfer", ["stages.0.size=64"]), 3)
    assert recipe.stages == (Stage(3, blocks=0, size=64), Stage(2, blocks=-1, size=64))
    with pytest.raises(RecipeError, match="before the last of 5; got 5"):
        opening_after(read_recipe("transfer"), 5)
    with pytest.raises(RecipeError, match=r"after 1 epoch or more.* got 0"):
        opening_after(read_recipe("transfer"), 0)
    with pytest.raises(RecipeError, match="one stage; 'progressive' has 4"):
        opening_after(read_recipe("progressive"), 1)
