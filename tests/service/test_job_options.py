"""What a job may be asked: the ranges, and that the web's library reads the records as they are."""

from __future__ import annotations

import dataclasses
from typing import Annotated, get_args

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from heads.balance import BALANCES
from heads.fitting import KINDS, FitOptions
from heads.labels import MIN_COUNT
from service.answers import JobKind
from service.job_options import (
    Balance,
    CompactJob,
    DuplicatesJob,
    FitJob,
    HeadKind,
    JobOptionError,
    JobOptions,
    MigrateJob,
    ProjectJob,
    RefreshJob,
    SuspectsJob,
)

ANY = TypeAdapter(Annotated[JobOptions, Field(discriminator="kind")])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"targets": ()}, r"^'targets' are 1 to 100 label columns; got 0\.$"),
        ({"targets": ("",)}, "'targets' are"),
        ({"targets": ("a",) * 101}, "got 101"),
        ({"targets": ("a", "b" * 513)}, r"^A target has at most 512 characters; one of 'targets' has more\.$"),
        ({"heads": ()}, r"^'heads' is of knn, linear, mlp, ensemble; got none\.$"),
        ({"heads": ("knn", "svm")}, "got svm"),
        ({"balance": "both"}, r"^'balance' is of none, weights, resample; got both\.$"),
        ({"min_count": 0}, r"^'min_count' is 1 to 1,000,000; got 0\.$"),
        ({"min_count": 1_000_001}, "'min_count'"),
        ({"trials": 0}, "'trials' is 1 to 1,000; got 0"),
        ({"trials": 1001}, "'trials'"),
        ({"timeout": 0.0}, r"^'timeout' is above 0 and up to 86400 seconds; got 0\.0\.$"),
        ({"timeout": 86_401.0}, "'timeout'"),
        ({"timeout": float("nan")}, "got nan"),
        ({"timeout": float("inf")}, "got inf"),
        ({"seed": -1}, "'seed' is 0 to 4,294,967,295; got -1"),
        ({"seed": 2**32}, r"got 4\.29e\+09"),
    ],
)
def test_a_fit_out_of_range_is_refused(options, sentence):
    with pytest.raises(JobOptionError, match=sentence):
        FitJob(**{"targets": ("type",), **options})


def test_the_ends_of_the_ranges_are_in_them():
    FitJob(("a" * 512,) * 100, ("mlp",), "weights", min_count=1, trials=1, timeout=1e-3, seed=0)
    FitJob(("a",), ("mlp",), "resample", min_count=1_000_000, trials=1000, timeout=86_400.0, seed=2**32 - 1)
    CompactJob(keep_hours=1)
    CompactJob(keep_hours=87_600)
    ProjectJob(seed=2**32 - 1)
    for limit in (1, 1000):
        SuspectsJob("a" * 512, limit)
        DuplicatesJob(limit=limit)
    for distance in (0, 2.0, None):
        DuplicatesJob(distance)


@pytest.mark.parametrize("hours", [0.99, 87_601, float("nan"), float("inf"), -(10.0**300)])
def test_a_compaction_out_of_range_is_refused(hours):
    with pytest.raises(JobOptionError, match=r"^'keep_hours' is 1 to 87,600; got .{1,10}\.$"):
        CompactJob(keep_hours=hours)


def test_a_migration_out_of_range_is_refused():
    with pytest.raises(JobOptionError, match=r"'pooling' is of cls, mean, .*; got max"):
        MigrateJob("x", pooling="max")
    with pytest.raises(JobOptionError, match="'precision' is of fp32, bf16; got int8"):
        MigrateJob("x", precision="int8")


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        (ProjectJob, {"seed": -1}, r"^'seed' is 0 to 4,294,967,295; got -1\.$"),
        (ProjectJob, {"seed": 2**32}, "'seed' is"),
        (SuspectsJob, {"target": ""}, r"^'target' is a label column, 1 to 512 characters; got 0\.$"),
        (SuspectsJob, {"target": "a" * 513}, "got 513"),
        (SuspectsJob, {"target": "a", "limit": 0}, r"^'limit' is 1 to 1,000; got 0\.$"),
        (SuspectsJob, {"target": "a", "limit": 1001}, "'limit'"),
        (DuplicatesJob, {"limit": 0}, r"^'limit' is 1 to 1,000; got 0\.$"),
        (DuplicatesJob, {"limit": 1001}, "'limit'"),
        (DuplicatesJob, {"max_distance": -0.001}, r"^'max_distance' is 0 to 2; got -0\.001\.$"),
        (DuplicatesJob, {"max_distance": 2.001}, "'max_distance'"),
        (DuplicatesJob, {"max_distance": float("nan")}, "got nan"),
    ],
)
def test_a_look_at_the_gallery_out_of_range_is_refused(kind, options, sentence):
    with pytest.raises(JobOptionError, match=sentence):
        kind(**options)


def test_the_choices_and_defaults_are_those_of_the_packages():
    assert get_args(HeadKind) == KINDS
    assert get_args(Balance) == BALANCES
    mine, theirs = FitJob(("a",)), FitOptions()
    assert mine.heads == tuple(theirs.kinds)
    for name in ("balance", "trials", "timeout", "seed"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert mine.min_count == MIN_COUNT


def test_the_records_are_told_apart_by_kind():
    kinds = [kind.__dataclass_fields__["kind"].default for kind in get_args(JobOptions)]
    assert tuple(kinds) == get_args(JobKind)
    assert ANY.validate_python({"kind": "refresh"}) == RefreshJob("default")
    assert ANY.validate_json('{"kind": "fit", "targets": ["a"], "heads": ["mlp"]}') == FitJob(("a",), ("mlp",))
    assert ANY.validate_python({"kind": "compact", "keep_hours": 2}) == CompactJob(2.0)
    assert ANY.validate_python({"kind": "migrate", "encoder": "e"}) == MigrateJob("e")
    assert ANY.validate_python({"kind": "project"}) == ProjectJob(0)
    assert ANY.validate_python({"kind": "suspects", "target": "a"}) == SuspectsJob("a", 100)
    assert ANY.validate_python({"kind": "duplicates", "max_distance": 0}) == DuplicatesJob(0.0, 100)
    # A sentence of ours is what the web's library says, too.
    with pytest.raises(ValidationError, match="'trials' is 1 to 1,000; got 0"):
        ANY.validate_python({"kind": "fit", "targets": ["a"], "trials": 0})
    for wrong in ({"kind": "drop"}, {}, {"kind": "fit"}, {"kind": "migrate"}, {"kind": "suspects"}):
        with pytest.raises(ValidationError):
            ANY.validate_python(wrong)
    with pytest.raises(dataclasses.FrozenInstanceError):
        RefreshJob().catalog = "x"
