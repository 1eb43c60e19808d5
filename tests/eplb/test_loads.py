"""Load statistics against numpy over the whole record, and the files that hold loads and plans."""

import doctest
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eplb import loads as loads_module
from eplb.files import read_loads, read_plan, write_loads, write_plan
from eplb.loads import LoadWindow
from eplb.plan import Plan
from eplb.topology import Topology


def record(num_iterations: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 1000, (num_iterations, 3, 5))


def filled(loads: Any, window: int) -> LoadWindow:
    history = LoadWindow(3, 5, window=window)
    for counts in loads:
        history.add(counts)
    return history


@pytest.mark.parametrize("num_iterations", [1, 3, 4, 5, 11], ids="added {}".format)
@pytest.mark.parametrize("window", [1, 4], ids="window {}".format)
def test_statistics_are_those_of_the_last_iterations(window: int, num_iterations: int) -> None:
    loads = record(num_iterations)
    history, last = filled(loads, window), loads[-window:].astype(np.float64)
    assert len(history) == len(last)
    np.testing.assert_array_equal(history.mean(), last.mean(axis=0))
    for q in (0, 50, 90, 100):
        np.testing.assert_allclose(history.percentile(q), np.percentile(last, q, axis=0))
    for half_life in (0.5, 2, 100):
        total, weights = np.zeros((3, 5)), 0.0
        for age, counts in enumerate(reversed(last)):
            total += counts * 2.0 ** (-age / half_life)
            weights += 2.0 ** (-age / half_life)
        np.testing.assert_allclose(history.ema(half_life), total / weights)
    np.testing.assert_array_equal(history.windows(len(last)), last)
    np.testing.assert_array_equal(history.windows(1)[0], history.mean())


@given(st.integers(1, 40), st.integers(1, 12), st.data())
def test_stretches_are_equal_and_in_order(num_added: int, window: int, data: st.DataObject) -> None:
    loads = record(num_added, seed=num_added)
    history, last = filled(loads, window), loads[-window:].astype(np.float64)
    n = data.draw(st.integers(1, len(last)))
    stretches = history.windows(n)
    lengths = [len(last) // n + (part < len(last) % n) for part in range(n)]
    start = 0
    for stretch, length in zip(stretches, lengths, strict=True):
        np.testing.assert_allclose(stretch, last[start : start + length].mean(axis=0))
        start += length


def test_what_was_added_is_copied() -> None:
    counts = np.ones((3, 5))
    history = LoadWindow(3, 5, window=2)
    history.add(counts)
    counts[:] = 7
    assert (history.mean() == 1).all()
    history.windows(1)[:] = 7
    assert (history.mean() == 1).all()


def test_a_reset_forgets_all() -> None:
    history = filled(record(5), 4)
    history.reset()
    assert len(history) == 0
    history.add(np.full((3, 5), 2.0))
    assert (history.percentile(0) == 2).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bfloat16])
def test_tensors_are_taken(dtype: torch.dtype) -> None:
    history = LoadWindow(3, 5, window=4)
    history.add(torch.full((3, 5), 3, dtype=dtype))
    assert (history.mean() == 3).all()


@pytest.mark.gpu
def test_tensors_on_a_gpu_are_taken() -> None:
    history = LoadWindow(3, 5, window=4)
    history.add(torch.full((3, 5), 3, device="cuda"))
    assert (history.mean() == 3).all()


@pytest.mark.parametrize("method", ["mean", "ema", "percentile", "windows"])
def test_without_an_iteration_there_is_no_statistic(method: str) -> None:
    history = LoadWindow(3, 5, window=4)
    arguments = () if method == "mean" else (1,)
    with pytest.raises(ValueError, match=f"LoadWindow.{method}: there must be an iteration"):
        getattr(history, method)(*arguments)


MISTAKES: dict[str, tuple[Any, str]] = {
    "no window": (lambda _: LoadWindow(3, 5, window=0), "LoadWindow: window must be at least 1"),
    "no layer": (lambda _: LoadWindow(0, 5, window=1), "num_layers must be at least 1, got 0"),
    "shape": (lambda h: h.add(np.ones((5, 3))), r"counts must have shape \[3, 5\], got \[5, 3\]"),
    "several": (lambda h: h.add(np.ones((1, 3, 5))), r"got \[1, 3, 5\] \(add one iteration at"),
    "negative": (lambda h: h.add(-np.ones((3, 5))), "LoadWindow.add: counts must be finite"),
    "half-life": (lambda h: h.ema(0), "ema: half_life must be above 0, got 0"),
    "NaN": (lambda h: h.ema(np.nan), "half_life must be above 0, got nan"),
    "percentile": (lambda h: h.percentile(101), "q must be from 0 to 100, got 101"),
    "no stretch": (lambda h: h.windows(0), "n must be from 1 to the 2 iterations, got 0"),
    "stretches": (lambda h: h.windows(3), "n must be from 1 to the 2 iterations, got 3"),
}


@pytest.mark.parametrize(("mistake", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(mistake: Any, message: str) -> None:
    history = filled(record(2), 4)
    with pytest.raises(ValueError, match=message):
        mistake(history)
    assert len(history) == 2


def test_only_arrays_and_tensors_are_counts() -> None:
    with pytest.raises(TypeError, match=r"LoadWindow.add: counts must be a tensor or a numpy arr"):
        LoadWindow(1, 1, window=1).add([[1]])  # type: ignore[arg-type]


def test_the_example_of_the_documentation() -> None:
    assert doctest.testmod(loads_module) == (0, 3)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("shape", [(4, 3, 5), (3, 5), (1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [np.int32, np.float64])
def test_loads_come_back(tmp_path: Path, suffix: str, shape: tuple[int, ...], dtype: Any) -> None:
    loads = (np.random.default_rng(0).random(shape) * 100).astype(dtype)
    path = tmp_path / f"loads{suffix}"
    write_loads(path, loads)
    read = read_loads(str(path))
    assert read.dtype == np.float64
    assert read.shape == (1, 1, *shape)[-3:]
    np.testing.assert_array_equal(read.reshape(shape), loads)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


JSON_MISTAKES = {
    "no JSON": ("[[1, 2", "must hold JSON"),
    "ragged": ("[[1, 2], [3]]", "must hold nested lists of equal lengths"),
    "ragged deeper": ("[[[1], [2]], [[3], 4]]", "must hold nested lists of equal lengths"),
    "rank": ("[1, 2]", r"must have 2 dimensions .* got shape \[2\]"),
    "number": ("3", "must have 2 dimensions"),
    "object": ('{"a": 1}', "got object"),
    "text": ('[["1"]]', "must be a tensor or a numpy array of integers or floats, got <U1"),
    "null": ("[[null]]", "got object"),
    "boolean": ("[[true]]", "got bool"),
    "NaN": ("[[1, NaN]]", "must be finite and not negative, got nan at layer 0, expert 1"),
    "negative": ("[[1, 1], [1, -2]]", "got -2.0 at layer 1, expert 1"),
    "huge": (f"[[1{'0' * 400}]]", "read_loads: "),
    "digits": (f"[[1{'0' * 5000}]]", "must hold JSON"),
    "empty": ("[]", "must have 2 dimensions"),
    "no experts": ("[[]]", "must have at least one expert"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "bytes": ("\udcff", "must hold JSON"),
}


@pytest.mark.parametrize(("text", "message"), JSON_MISTAKES.values(), ids=JSON_MISTAKES)
def test_json_that_holds_no_loads(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "loads.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=message) as error:
        read_loads(path)
    assert str(path) in str(error.value)


def test_npy_that_holds_no_loads(tmp_path: Path) -> None:
    path = tmp_path / "loads.npy"
    np.save(path, np.ones((2, 3)))
    good = path.read_bytes()
    for content in (b"", b"\x93NUMPY", good[:100], b"PK\x03\x04", b"garbage", good[:-8]):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"read_loads: .*loads\.npy must be an array of number"
        ):
            read_loads(path)
    path.write_bytes(good.replace(b"(2, 3), }" + b" " * 12, b"(2000000000000, 3), }"))
    with pytest.raises(ValueError, match="must be an array of numbers"):
        read_loads(path)
    np.save(path, np.ones(3))
    with pytest.raises(ValueError, match=r"got shape \[3\]"):
        read_loads(path)


def test_objects_in_a_npy_are_not_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "loads.npy"
    np.save(path, np.array([[Trap()]]), allow_pickle=True)
    with pytest.raises(ValueError, match="must be an array of numbers"):
        read_loads(path)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="must be an array of numbers"):
        read_loads(path)
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for suffix in (".npy", ".json"):
        with pytest.raises(FileNotFoundError):
            read_loads(tmp_path / f"none{suffix}")
    with pytest.raises(ValueError, match=r"read_loads: path must end in \.npy or \.json, got"):
        read_loads(tmp_path / "loads.csv")
    with pytest.raises(ValueError, match=r"write_loads: path must end in \.npy or \.json, got"):
        write_loads(tmp_path / "loads.npz", np.ones((1, 1)))


def small_plan() -> Plan:
    return Plan(
        Topology((2, 0, 1), (0, 0, 1), 2),
        "global",
        np.array([[[1.0, 3.0]], [[2.0, 0.1]]]),
        np.array([[1, -1, 0]]),
        np.array([[1.0, 0.0, 1.0]]),
        np.array([1.25]),
        np.array([1]),
    )


def test_a_plan_comes_back(tmp_path: Path) -> None:
    plan = small_plan()
    path = tmp_path / "plan.json"
    write_plan(path, plan)
    read = read_plan(path)
    assert read.topology == plan.topology
    assert read.policy == plan.policy
    for name in ("loads", "slots", "shares", "lower_bound", "num_moved"):
        expected = getattr(plan, name)
        assert getattr(read, name).dtype == expected.dtype
        np.testing.assert_array_equal(getattr(read, name), expected)
    assert [each.name for each in tmp_path.iterdir()] == ["plan.json"]


def test_a_plan_without_a_layer_is_not_written(tmp_path: Path) -> None:
    plan = replace(small_plan(), slots=np.zeros((0, 3), np.int64))
    with pytest.raises(ValueError, match="write_plan: plan must have a layer, got none"):
        write_plan(tmp_path / "plan.json", plan)


PLAN_MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"eplb_plan": 2}, "must have version 1, got 2"),
    "policy": ({"policy": "best"}, "must have policy hierarchical or global"),
    "expert": ({"slots": [[1, 2, 0]]}, "must have experts from 0 to 1 in slots, or -1"),
    "below": ({"slots": [[1, -2, 0]]}, "must have experts from 0 to 1 in slots, or -1"),
    "missing expert": ({"slots": [[1, 1, -1]]}, "a replica of every expert, none of 0 in layer 0"),
    "slots": ({"slots": [[1, 0]]}, r"must have slots of shape \[1, 3\], got \[1, 2\]"),
    "fractions": ({"slots": [[1, 0.5, 0]]}, "must hold numbers in"),
    "shares": ({"shares": [[1, 0, 1.5]]}, "must have shares from 0 to 1"),
    "NaN": ({"shares": [[1, 0, float("nan")]]}, "must have shares from 0 to 1"),
    "loads": ({"loads": [[[1, -1]]]}, "must be finite and not negative"),
    "flat loads": ({"loads": [[1, 1]]}, "must have loads .num_windows, num_layers, num_experts."),
    "bound": ({"lower_bound": [float("inf")]}, "must be finite"),
    "text": ({"lower_bound": ["1"]}, "must hold numbers"),
    "ragged": ({"loads": [[[1, 1]], [[1]]]}, "must hold a whole plan"),
    "topology": ({"topology": {"slots": [3], "node_of": [0, 1], "num_groups": 1}}, "node_of must"),
    "no topology": ({"topology": None}, "must hold a whole plan"),
    "huge topology": (
        {"topology": {"slots": [10**30], "node_of": [0], "num_groups": 1}},
        "topology must hold integers",
    ),
}


@pytest.mark.parametrize(("changed", "message"), PLAN_MISTAKES.values(), ids=PLAN_MISTAKES)
def test_a_plan_that_contradicts_itself(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = tmp_path / "plan.json"
    write_plan(path, small_plan())
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(ValueError, match=message) as error:
        read_plan(path)
    assert str(path) in str(error.value)


def test_a_plan_with_something_missing(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_plan(path, small_plan())
    whole = json.loads(path.read_text())
    for key in whole:
        path.write_text(json.dumps({other: whole[other] for other in whole if other != key}))
        with pytest.raises(ValueError, match="read_plan: "):
            read_plan(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.data())
def test_whatever_a_plan_file_holds_the_answer_is_a_plan_or_a_value_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "plan.json"
    write_plan(path, small_plan())
    content = json.loads(path.read_text())
    key = data.draw(st.sampled_from([*content, *content["topology"]]))
    (content if key in content else content["topology"])[key] = data.draw(json_values)
    path.write_text(json.dumps(content))
    try:
        plan = read_plan(path)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either is right)
    else:
        assert plan.counts.all()


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    write_plan(path, small_plan())
    before = path.read_bytes()

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        write_plan(path, replace(small_plan(), policy="hierarchical"))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["plan.json"]
