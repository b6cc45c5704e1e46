"""Rows, the null zoo and the suspect farm."""

import collections
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward.core.canonical import canonical_json
from modelward.core.catalogue import catalogue, find
from modelward.core.errors import ModelwardError, UsageError
from modelward.core.families import TheftMethod
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.data.study import Study
from modelward.evaluation import farm, zoo
from modelward.evaluation.cell import Cell
from modelward.evaluation.rows import Row, from_interval, rate
from modelward.evaluation.store import Store
from modelward.statistics import Interval, mean_interval, wilson

ARCHS = ["mlp", "lenet5", "cnn", "resnet8", "resnet8:width=8", "resnet14", "resnet20"]
COLUMNS = {
    *("metric", "value", "n", "ci_low", "ci_high", "unit", "method", "variant", "profile", "attack", "budget"),
    *("model", "data", "seed", "threads", "precision", "seconds", "flags", "command"),
}


def images(count, seed, *, channels=1, side=12):
    rng = generator(seed)
    pixels = torch.randint(0, 256, (count, channels, side, side), generator=rng, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 3, ("no", "ja", "ünsure"), f"noise {seed}")


@pytest.fixture(scope="module")
def small_study():
    return Study(
        **{part: images(size, seed) for seed, (part, size) in enumerate([("owner", 40), ("attacker", 30), ("probes", 9), ("test", 12)])}
    )


@pytest.fixture(scope="module")
def kept(small_study, tmp_path_factory):
    """Return a store and the digests of the study's parts in it."""
    store = Store(tmp_path_factory.mktemp("kept"))
    return store, zoo.put_parts(store, small_study)


# rows


@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_rate_has_the_wilson_interval(counts):
    successes, n = counts
    row = rate("accuracy", successes, n, method="ftal")
    z, share = 1.959963984540054, successes / n
    centre, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    assert (row.value, row.n, row.metric, row.method) == (share, n, "accuracy", "ftal")
    assert row.ci_low == pytest.approx(max(0.0, (centre - spread) / (1 + z * z / n)), abs=1e-9)
    assert row.ci_high == pytest.approx(min(1.0, (centre + spread) / (1 + z * z / n)), abs=1e-9)
    interval = wilson(successes, n)
    assert row == from_interval("accuracy", interval, method="ftal")


def test_a_row_has_the_columns_of_the_result_files():
    row = rate("accuracy", 8, 10, flags=("few",), extra={"group": "FTAL"}).as_json()
    assert set(row) == COLUMNS | {"extra"}
    assert json.loads(canonical_json(row)) == row
    assert (row["unit"], row["flags"], row["extra"]) == ("fraction", ["few"], {"group": "FTAL"})


def test_what_was_not_measured_is_null_and_never_zero():
    nothing = rate("accuracy", 0, 0).as_json()
    assert (nothing["value"], nothing["n"]) == (None, 0)
    assert Row(metric="distance", value=2.0, n=1).as_json()["ci_high"] is None


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=3, max_size=20))
def test_a_figure_keeps_the_interval_it_comes_with(values):
    interval = mean_interval(values)
    row = from_interval("distance", interval, unit="px", seed=3)
    assert Interval(row.value, row.ci_low, row.ci_high, row.n, interval.method) == interval
    assert (row.unit, row.seed) == ("px", 3)


# the null zoo


@settings(deadline=None)
@given(st.sampled_from(ARCHS), st.integers(0, 120))
def test_every_prefix_of_the_zoo_holds_its_share_of_each_kind(arch, count):
    made = zoo.specs(arch, count)
    assert len(made) == count
    assert made == zoo.specs(arch, 200)[:count]
    kinds = collections.Counter((spec.part, spec.fraction, spec.group) for spec in made)
    total = sum(kind[4] for kind in zoo._KINDS)
    shares = collections.Counter()
    for _, part, fraction, group, share in zoo._KINDS:
        shares[part, fraction, group] += share
    parts = collections.Counter((part, fraction, group) for _, part, fraction, group, _ in zoo._KINDS)
    for kind, share in shares.items():
        assert abs(kinds[kind] - share * count / total) < 1.5 * parts[kind]
    if count and count % total == 0:
        assert kinds == {kind: share * count // total for kind, share in shares.items()}


@settings(deadline=None)
@given(st.sampled_from(ARCHS), st.integers(1, 4))
def test_a_whole_zoo_is_dealt_exactly(arch, times):
    made = zoo.specs(arch, 30 * times)
    assert sum(kind[4] for kind in zoo._KINDS) == 30
    same = [spec for spec in made if spec.arch == arch]
    assert len(same) == (6 + 5 + 4 + 2) * times
    assert len({spec.arch for spec in made}) == 3
    assert sum(spec.part == "owner" for spec in made) == (3 + 5 + 2 + 1) * times


@settings(deadline=None)
@given(st.sampled_from(ARCHS), st.integers(1, 60))
def test_no_null_is_there_twice_and_other_architectures_are_others(arch, count):
    made = zoo.specs(arch, count)
    assert len({(spec.arch, spec.part, spec.fraction, spec.group, spec.index) for spec in made}) == count
    assert all((spec.arch == arch) != spec.group.startswith(("other", "accuracy-matched, other")) for spec in made)
    assert all(spec.arch.partition(":")[0] != arch.partition(":")[0] for spec in made if spec.arch != arch)


@pytest.mark.parametrize(("profile", "siblings", "nulls"), [("smoke", 2, 6), ("quick", 6, 28), ("full", 8, 84)])
@pytest.mark.parametrize("arch", ["lenet5", "cnn"])
def test_the_zoo_by_profile(small_study, kept, arch, profile, siblings, nulls):
    cells = zoo.null_cells(arch, small_study, kept[1], profile=profile)
    assert (zoo.SIBLINGS[profile], zoo.COUNTS[profile]) == (siblings, nulls)
    assert [c.settings["group"] == "sibling" for c in cells] == [True] * siblings + [False] * nulls
    assert all(c.settings["arch"] == arch and c.inputs["images"] == kept[1]["owner"] for c in cells[:siblings])
    assert len({c.seed for c in cells}) == len({c.key for c in cells}) == siblings + nulls
    assert all(c.inputs["test"] == kept[1]["test"] and c.seconds > 0 and not list(c.needs) for c in cells)
    assert all(0 <= c.seed < 2**63 for c in cells)


def test_a_bigger_zoo_holds_the_smaller_one(small_study, kept):
    keys = [{c.key for c in zoo.null_cells("cnn", small_study, kept[1], profile=profile)} for profile in ("smoke", "quick", "full")]
    assert keys[0] < keys[1] < keys[2]


def test_seed_and_data_change_every_null(small_study, kept):
    def keys(seed, parts):
        return {c.key for c in zoo.null_cells("mlp", small_study, parts, profile="smoke", seed=seed)}

    first = keys(0, kept[1])
    assert first == keys(0, dict(kept[1]))
    assert first.isdisjoint(keys(1, kept[1]))
    assert first.isdisjoint(keys(0, kept[1] | {"owner": "0" * 64, "attacker": "1" * 64}))


def test_siblings_are_not_the_other_nulls_of_the_same_recipe(small_study, kept):
    cells = zoo.null_cells("cnn", small_study, kept[1], profile="full")
    alike = [c for c in cells if c.settings["group"] in {"sibling", "same recipe, other seed"}]
    assert len(alike) > 8 + 10
    assert len({c.seed for c in alike}) == len(alike)


def test_unknown_profiles_and_architectures_are_refused(small_study, kept):
    with pytest.raises(UsageError, match="smoke, quick, full"):
        zoo.null_cells("cnn", small_study, kept[1], profile="huge")
    with pytest.raises(UsageError, match="no architecture"):
        zoo.null_cells("cnm", small_study, kept[1], profile="smoke")


def test_a_zoo_is_trained_once_and_then_read(small_study, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "null_recipe", lambda _: zoo.Recipe(epochs=1, batch=16, precision="fp32"))
    store = Store(tmp_path)
    first = zoo.null_zoo("mlp:width=8", small_study, profile="smoke", store=store, jobs=1)
    assert len(first) == store.count() == 8
    rows = [f.rows[0] for f in store.find_many(entry["key"] for entry in store.listing()).values()]
    assert {row["metric"] for row in rows} == {"accuracy"}
    assert {row["n"] for row in rows} == {len(small_study.test)}
    assert all(
        row["value"] == row["extra"]["accuracy"] or math.isclose(row["value"], row["extra"]["accuracy"], rel_tol=1e-6) for row in rows
    )
    second = zoo.null_zoo("mlp:width=8", small_study, profile="smoke", store=store, jobs=1)
    assert store.count() == 8
    x = small_study.test.batch(slice(None))
    with torch.no_grad():
        outputs = [[model(x) for model in models] if models[0](x).shape else [] for models in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    assert all(not torch.equal(a, b) for i, a in enumerate(outputs[0]) for b in outputs[0][:i])


def test_a_zoo_that_cannot_be_trained_says_why(small_study, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "null_recipe", lambda _: zoo.Recipe(epochs=1, batch=16))
    monkeypatch.setattr(zoo, "train_cell", lambda *_: Cell("toy_work:refuse", {"name": "bad"}))
    with pytest.raises(ModelwardError, match="bad was refused"):
        zoo.null_zoo("mlp:width=8", small_study, profile="smoke", store=Store(tmp_path), jobs=1)


# the suspect farm


@settings(deadline=None)
@given(st.sampled_from(ARCHS), st.integers(0, 6), st.lists(st.sampled_from(["mlp", "resnet8", "cnn"]), max_size=3, unique=True))
def test_the_farm_holds_every_theft_and_none_twice(arch, copies, others):
    made = farm.thefts(arch, copies, others)
    groups = collections.Counter(spec.group for spec in made)
    trained = {"FTAL", "FTLL", "RTAL", "extract-L", "extract-P"}
    assert groups == collections.Counter({**(dict.fromkeys(trained, copies) if copies else {}), "prune": 5, "quantise": 2})
    assert len({canonical_json(spec) for spec in made}) == len(made)
    for spec in made:
        assert (spec.arch is None) != spec.group.startswith("extract")
        assert spec.labels == {"FT": "true", "RT": "true", "ex": "stolen"}.get(spec.group[:2], "none")
    turns = [spec.arch for spec in made if spec.group == "extract-L"]
    assert turns == [[arch, *others][index % (1 + len(others))] for index in range(copies)]


@pytest.mark.parametrize("profile", farm.PROFILES)
def test_the_battery_uses_every_theft_method_there_is_with_settings_it_takes(profile):
    made = farm.battery("cnn", profile=profile)
    known = {name for name, method in catalogue().items() if issubclass(method, TheftMethod)}
    assert {spec.method for spec in made} == known - {*farm.ADAPTIVE}
    assert known > {*farm.ADAPTIVE}
    assert len({canonical_json(spec) for spec in made}) == len(made)
    for spec in made:
        method = find(spec.method).configured(spec.fields)
        assert all(canonical_json(method.settings()[name]) for name in spec.fields)
        assert spec.labels in method.labels


@pytest.mark.parametrize("arch", ["mlp", "lenet5", "resnet8", "vit-tiny"])
def test_the_battery_leaves_out_what_a_network_has_no_part_for(arch):
    methods = {spec.method for spec in farm.battery(arch, profile="smoke")}
    every = {spec.method for spec in farm.battery("cnn", profile="smoke")}
    assert every - methods == {"resnet8": set(), "vit-tiny": {"bn-recalibrate", "fold-bn", "rescale"}}.get(
        arch, {"bn-recalibrate", "fold-bn"}
    )
    cross = next(spec for spec in farm.battery(arch, profile="smoke") if spec.method == "extract-cross")
    assert cross.arch == ("cnn" if arch == "resnet8" else None)


def test_a_battery_of_another_profile_is_refused():
    with pytest.raises(UsageError, match="smoke, standard, full"):
        farm.battery("cnn", profile="quick")


def test_a_theft_is_given_the_least_access_that_all_of_it_needs():
    def access(method, **fields):
        return farm.access_of(farm.TheftSpec(method, method, fields)).value

    assert (access("ftal"), access("extract-l"), access("extract-p")) == ("weights", "label", "probabilities")
    assert (access("ensemble"), access("ensemble", member="distil"), access("ensemble", member="ftal")) == (
        "label",
        "probabilities",
        "weights",
    )
    assert (access("combined"), access("combined", steps=["extract-l"])) == ("weights", "label")


def test_theft_cells(small_study, kept):
    victim = Cell("toy_work:add", {"victim": 1})
    specs = farm.thefts("cnn", 3, ["mlp"])
    cells = [farm.theft_cell(spec, victim, "cnn", kept[1], small_study, seed=0) for spec in specs]
    assert len({c.key for c in cells}) == len({c.seed for c in cells}) == len({c.label for c in cells}) == len(specs)
    for spec, made in zip(specs, cells, strict=True):
        assert list(made.needs) == [victim]
        assert (made.inputs["images"], made.inputs["test"]) == (kept[1]["attacker"], kept[1]["test"])
        assert made.settings["access"] == {"extract-L": "label", "extract-P": "probabilities"}.get(spec.group, "weights")
        assert made.uses == (find(spec.method).__module__,)
        assert made.seconds > 0
    again = [farm.theft_cell(spec, victim, "cnn", kept[1], small_study, seed=0) for spec in specs]
    assert [c.key for c in again] == [c.key for c in cells]
    other = [farm.theft_cell(spec, "0" * 64, "cnn", kept[1], small_study, seed=0) for spec in specs]
    assert [c.seed for c in other] == [c.seed for c in cells]  # the same thief against another victim
    assert {c.key for c in other}.isdisjoint(c.key for c in cells)
    reseeded = [farm.theft_cell(spec, victim, "cnn", kept[1], small_study, seed=1) for spec in specs]
    assert {c.seed for c in reseeded}.isdisjoint(c.seed for c in cells)
