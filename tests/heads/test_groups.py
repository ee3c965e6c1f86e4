"""Groups: what is written, which labels a name means, and probabilities restricted and reweighed, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from heads.checks import HeadError
from heads.groups import ALL, DEFAULT_GROUPS, label_factors, parse_allowed, parse_weights, read_groups, reweigh

LABELS = ["Jeans", "Shirts", "Shoes", "Tops"]


def factors_of(labels=LABELS, **options):
    factors = label_factors(labels, **options)
    assert (factors.dtype, factors.shape) == (np.float32, (len(labels),))
    return factors.tolist()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Tops", ("Tops",)),
        (" Shirts , Track Pants ", ("Shirts", "Track Pants")),
        ("Shirts,Jeans,Shirts", ("Shirts", "Jeans")),
        ("=Tops,Tops", ("=Tops", "Tops")),
        (r"Shirts\, blue,a\\b", ("Shirts, blue", "a\\b")),
        ("a=b", ("a=b",)),
        # A backslash before anything else is a backslash, at the end too.
        ("C:\\new,a\\", ("C:\\new", "a\\")),
        # No group is called so: it can only be the label `=x`.
        (r"\=x, \=y", ("==x", "==y")),
    ],
)
def test_allowed_names_as_they_are_meant(text, names):
    assert parse_allowed(text) == names


@pytest.mark.parametrize("text", ["", " ", ",", "Shirts,", ",Shirts", "a,,b", "=", "a, ="])
def test_an_empty_name_is_not_allowed(text):
    with pytest.raises(HeadError, match=rf"labels or groups, joined by commas, Tops or Shirts,Jeans; got '{text}'\."):
        parse_allowed(text)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("Bottoms=0.6", {"Bottoms": 0.6}),
        (" Bottoms = 0.6 , Shirts=1.2", {"Bottoms": 0.6, "Shirts": 1.2}),
        ("=Tops=2,Tops=3", {"=Tops": 2.0, "Tops": 3.0}),
        (r"Shirts\, blue=1,a\=b=2,\=x=3", {"Shirts, blue": 1.0, "a=b": 2.0, "==x": 3.0}),
        # The number is what follows the last `=`.
        ("a=b=2", {"a=b": 2.0}),
        # Numbers that are refused later, with the labels at hand.
        ("a=-1,b=inf", {"a": -1.0, "b": np.inf}),
    ],
)
def test_weights_as_they_are_meant(text, weights):
    assert parse_weights(text) == weights


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "''"),
        ("Shirts", "'Shirts'"),
        ("a=1,Shirts", "'Shirts'"),
        ("a=1,", "''"),
        ("a=", "'a='"),
        ("a=much", "'a=much'"),
        ("=1", "'=1'"),
        ("==1", "'==1'"),
        ("=Tops", "'=Tops'"),
        (r"a\=1", r"'a\\\\=1'"),
    ],
)
def test_weights_that_cannot_be_read_are_refused(text, part):
    with pytest.raises(HeadError, match=rf"name=number, joined by commas, Bottoms=0.6,Shirts=1.2; got {part}\."):
        parse_weights(text)


def test_a_weight_given_twice_is_refused():
    with pytest.raises(HeadError, match=r"name 'Bottoms' twice, 0.6 and 0.5; leave one"):
        parse_weights("Bottoms=0.6,Bottoms=0.5")


def test_everything_counts_alike_where_nothing_is_asked():
    assert factors_of() == [1, 1, 1, 1]
    assert factors_of(allowed=("All",)) == [1, 1, 1, 1]


def test_a_group_counts_the_labels_that_the_head_has():
    assert factors_of(allowed=("Bottoms",)) == [1, 0, 0, 0]
    # Tops is a group and a label of Kaggle's articleType: the group wins, and `=` asks for the label.
    assert factors_of(allowed=("Tops",)) == [0, 1, 0, 1]
    assert factors_of(allowed=("=Tops",)) == [0, 0, 0, 1]
    assert factors_of(allowed=("Bottoms", "Shoes")) == [1, 0, 1, 0]
    # clothing-small
    assert factors_of(["dress", "longsleeve", "outwear", "pants"], allowed=("Tops",)) == [0, 1, 1, 0]


def test_a_label_with_the_name_of_a_group_that_the_head_does_not_know_is_meant():
    assert factors_of(["Bottoms", "Shoes", "Tops"], allowed=("Bottoms",)) == [1, 0, 0]


def test_all_is_every_label_even_where_one_is_called_so():
    assert factors_of(["All", "None"], allowed=("All",)) == [1, 1]
    assert factors_of(["All", "None"], allowed=("=All",)) == [1, 0]


def test_a_label_that_begins_with_an_equals_sign():
    assert factors_of(["=x", "x"], allowed=parse_allowed("=x")) == [0, 1]
    assert factors_of(["=x", "x"], allowed=parse_allowed(r"\=x")) == [1, 0]


def test_all_weights_that_apply_are_multiplied():
    # Jeans: Bottoms 0.5; Shirts: Tops 2 times its own 3; Tops: the group's 2; Shoes: none. All have the 4 of All.
    weights = {"Bottoms": 0.5, "Tops": 2.0, "Shirts": 3.0, "All": 4.0}
    assert factors_of(weights=weights) == [2, 24, 4, 8]
    # What is not allowed has 0, whatever it weighs.
    assert factors_of(weights=weights, allowed=("Bottoms", "=Tops")) == [2, 0, 0, 8]
    # A weight of 0 is one way not to allow.
    assert factors_of(weights={"Tops": 0.0}) == [1, 0, 1, 0]


def test_labels_of_an_array_are_labels():
    assert label_factors(np.array(LABELS), allowed=("Shoes",)).tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allowed": ("shirt",)}, r"no label or group 'shirt'; did you mean Shirts\?$"),
        ({"allowed": ("bottom",)}, r"no label or group 'bottom'; did you mean Bottoms\?$"),
        ({"weights": {"Cap": 1.0}}, r"'Cap'; it has Jeans, Shirts, Shoes, Tops, and groups are All, Tops, Bottoms\.$"),
        ({"allowed": ("=Bottoms",)}, r"no label 'Bottoms'; it has Jeans, Shirts, Shoes, Tops\.$"),
        ({"allowed": ("=shoe",)}, r"no label 'shoe'; did you mean Shoes\?$"),
        ({"weights": {"Shirts": -0.1}}, r"finite number, 0 or more; 'Shirts' has -0\.1\."),
        ({"weights": {"Shirts": float("nan")}}, "'Shirts' has nan"),
        ({"weights": {"Shirts": float("inf")}}, "'Shirts' has inf"),
        ({"weights": {"All": 0.0}}, "No label is left: zero weights for Jeans, Shirts, Shoes, Tops. Allow more"),
        ({"weights": {"Tops": 0.0}, "allowed": ("Shirts", "=Tops")}, r"zero weights for Shirts, Tops\. "),
        # 1e-60 is 0 in float32, 1e60 is infinite there, and infinity times 0 is no number.
        ({"weights": {"All": 1e-60}}, "zero weights for Jeans"),
        ({"weights": {"All": 1e30, "Shirts": 1e30}}, r"come to 1e\+60, too much"),
        ({"weights": {"All": 1e200, "Shirts": 1e200, "Tops": 0.0}}, "come to nan, too much"),
    ],
)
def test_what_cannot_be_asked(options, message):
    with pytest.raises(HeadError, match=message):
        label_factors(LABELS, **options)


def test_a_group_of_which_the_head_has_nothing_is_told():
    with pytest.raises(HeadError, match=r"no label of the group 'Bottoms' \(Jeans, .*\.\.\.\); it has Clogs, Hats\.$"):
        label_factors(["Clogs", "Hats"], allowed=("Bottoms",))


def test_names_in_other_letters_are_close():
    with pytest.raises(HeadError, match=r"no label or group 'tee'; did you mean TEE\?$"):
        label_factors(["CAP", "TEE"], allowed=("tee",))
    with pytest.raises(HeadError, match=r"no label or group 'TEE'; did you mean tee\?$"):
        label_factors(["cap", "tee"], allowed=("TEE",))


def test_long_lists_are_cut():
    labels = [f"number {n}" for n in range(9)]
    with pytest.raises(HeadError, match=r"it has number 0, .* number 7 \.\.\., and groups are"):
        label_factors(labels, allowed=("Cap",))


def test_the_fifteen_types_are_tops_or_bottoms():
    # RECIPES of the desktop GUI: eight types of topwear, seven of bottomwear; then the names of clothing-small.
    assert len(DEFAULT_GROUPS["Tops"][:8]) + len(DEFAULT_GROUPS["Bottoms"][:7]) == 15
    fifteen = [*DEFAULT_GROUPS["Tops"][:8], *DEFAULT_GROUPS["Bottoms"][:7]]
    assert (fifteen[0], fifteen[7], fifteen[8], fifteen[14]) == ("Tshirts", "Waistcoat", "Jeans", "Swimwear")
    assert factors_of(fifteen, allowed=("Tops",)) == [1] * 8 + [0] * 7
    assert factors_of(fifteen, weights={"Bottoms": 0.5}) == [1] * 8 + [0.5] * 7
    assert not set(DEFAULT_GROUPS["Tops"]) & set(DEFAULT_GROUPS["Bottoms"])
    small = ["dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt"]
    assert factors_of(small, allowed=("Tops",)) == [0, 0, 1, 1, 0, 1, 0, 0, 0, 1]
    assert factors_of(small, allowed=("Bottoms",)) == [0, 0, 0, 0, 1, 0, 0, 1, 1, 0]
    assert ALL not in DEFAULT_GROUPS


def test_groups_of_a_file_replace_built_in_ones_of_the_same_name(tmp_path):
    path = tmp_path / "groups.toml"
    path.write_text('Tops = ["Blouse", "Tee"]\n"Für Füße" = ["Shoes"]\n', "utf-8")
    groups = read_groups(path)
    assert groups == {"Tops": ("Blouse", "Tee"), "Bottoms": DEFAULT_GROUPS["Bottoms"], "Für Füße": ("Shoes",)}
    assert factors_of(allowed=("Für Füße",), groups=groups) == [0, 0, 1, 0]
    # The head has no label of the file's Tops, so the label of that name is meant.
    assert factors_of(allowed=("Tops",), groups=groups) == [0, 0, 0, 1]
    assert factors_of(["Blouse", "Shirts"], allowed=("Tops",), groups=groups) == [1, 0]
    # A label that is there twice counts once.
    path.write_text('Feet = ["Shoes", "Shoes"]')
    assert factors_of(weights={"Feet": 3.0}, groups=read_groups(path)) == [1, 1, 3, 1]
    path.write_text("")
    assert read_groups(path) == DEFAULT_GROUPS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "A TOML file with lines like Tops = .* was wanted; .*groups.toml: .*No such file"),
        ("Tops = Blouse", "groups.toml: Invalid value"),
        ('a = ["x"]\na = ["y"]', "groups.toml: .*overwrite"),
        (b'\xff = ["x"]', "groups.toml: 'utf-8' codec"),
        ('All = ["x"]', "has a group 'All'. All is every label of a head"),
        ('"=Tops" = ["x"]', "has a group '=Tops'"),
        ('" " = ["x"]', "has a group ' '"),
        ('" Tops" = ["x"]', "has a group ' Tops'"),
        ('Tops = "Blouse"', r"A group is a list of labels, Tops = \[.*; .*groups.toml has 'Blouse'\."),
        ("Tops = []", r"groups.toml has \[\]\."),
        ('Tops = ["Blouse", 3]', r"groups.toml has \['Blouse', 3\]\."),
        ('Tops = [""]', r"groups.toml has \[''\]\."),
        ('[Tops]\nlabels = ["x"]', r"groups.toml has \{'labels'"),
    ],
)
def test_files_that_hold_no_groups(tmp_path, content, message):
    path = tmp_path / "groups.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(HeadError, match=message):
        read_groups(path)


def probabilities_of(*rows):
    return np.array(rows, np.float32)


def test_one_label_an_item_is_multiplied_and_divided_by_the_sum():
    # The upper-body bias: 0.4, 0.5 * 0.6, 0.1 come to 0.8 in all, and the first label overtakes the second.
    reweighed = reweigh(probabilities_of([0.4, 0.5, 0.1]), np.array([1, 0.6, 1], np.float32))
    assert reweighed.dtype == np.float32
    np.testing.assert_allclose(reweighed, [[0.5, 0.375, 0.125]], rtol=1e-6)
    # Only what is allowed: 0.4 and 0.1 of 0.5; a second row by itself.
    reweighed = reweigh(probabilities_of([0.4, 0.5, 0.1], [0.2, 0.0, 0.8]), np.array([1, 0, 1], np.float32))
    np.testing.assert_allclose(reweighed, [[0.8, 0, 0.2], [0.2, 0, 0.8]], rtol=1e-6)


def test_factors_of_one_leave_probabilities_as_they_are():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(7), 20).astype(np.float32)
    np.testing.assert_allclose(reweigh(probabilities, np.ones(7, np.float32)), probabilities, rtol=1e-6)
    np.testing.assert_allclose(
        reweigh(probabilities, np.ones(7, np.float32), multi_label=True), probabilities, rtol=1e-6
    )


def test_a_row_without_any_allowed_label_becomes_the_factors():
    # 1 and 3 of 4; the other row is not touched by that.
    factors = np.array([1, 0, 3], np.float32)
    reweighed = reweigh(probabilities_of([0, 1, 0], [0.5, 0.0, 0.5]), factors)
    np.testing.assert_allclose(reweighed, [[0.25, 0, 0.75], [0.25, 0, 0.75]], rtol=1e-6)
    reweighed = reweigh(probabilities_of([0, 1, 0], [0.8, 0.1, 0.1]), np.array([1, 0, 1], np.float32))
    np.testing.assert_allclose(reweighed, [[0.5, 0, 0.5], [8 / 9, 0, 1 / 9]], rtol=1e-6)


def test_products_too_small_for_float32_still_tell_labels_apart():
    # 1e-30 * 1e-30 is 0 in float32; a row of 1e-30 and 3e-30 is 1 to 3 all the same.
    reweighed = reweigh(probabilities_of([1e-30, 3e-30, 1]), np.array([1e-30, 1e-30, 0], np.float32))
    np.testing.assert_allclose(reweighed, [[0.25, 0.75, 0]], rtol=1e-5)
    # And large factors do not overflow.
    reweighed = reweigh(probabilities_of([0.5, 0.5]), np.array([3e38, 3e38], np.float32))
    np.testing.assert_allclose(reweighed, [[0.5, 0.5]], rtol=1e-6)


def test_several_labels_an_item_have_their_odds_multiplied():
    # 0.5: odds 1, doubled 2, so 2/3. 0.8: odds 4, halved 2, so 2/3. 0.9 is not allowed. 0.3: factor 1.
    factors = np.array([2, 0.5, 0, 1], np.float32)
    reweighed = reweigh(probabilities_of([0.5, 0.8, 0.9, 0.3]), factors, multi_label=True)
    assert reweighed.dtype == np.float32
    np.testing.assert_allclose(reweighed, [[2 / 3, 2 / 3, 0, 0.3]], rtol=1e-6)
    # What is sure stays sure, unless it is not allowed; what is impossible stays so.
    reweighed = reweigh(probabilities_of([1, 1, 1, 0]), np.array([2, 0.5, 0, 9], np.float32), multi_label=True)
    assert reweighed.tolist() == [[1, 1, 0, 0]]


def test_no_rows_give_no_rows():
    factors = np.ones(3, np.float32)
    assert reweigh(np.zeros((0, 3), np.float32), factors).shape == (0, 3)
    assert reweigh(np.zeros((0, 3), np.float32), factors, multi_label=True).shape == (0, 3)


@pytest.mark.parametrize(
    ("shape", "factors"), [((2, 3), (4,)), ((3,), (3,)), ((3, 3, 3), (3,)), ((3,), ()), ((2, 3, 3), (3, 3))]
)
def test_shapes_that_do_not_fit_are_told(shape, factors):
    with pytest.raises(HeadError, match=r"\(B, C\) probabilities and \(C,\) factors were wanted; got \("):
        reweigh(np.ones(shape, np.float32), np.ones(factors, np.float32))


def test_what_came_in_is_not_changed():
    probabilities, factors = probabilities_of([0.4, 0.5, 0.1]), np.array([1, 0, 2], np.float32)
    reweigh(probabilities, factors)
    reweigh(probabilities, factors, multi_label=True)
    np.testing.assert_array_equal(probabilities, probabilities_of([0.4, 0.5, 0.1]))
    assert factors.tolist() == [1, 0, 2]
