"""Approximations: as near to the exact function as PTX promises, and exact where it says so."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from csrc import simulator
from tests.oracles.number_formats import FORMATS, value_of
from tests.simulator.instructions import evaluate
from tests.simulator.running import source
from tests.simulator.test_instructions_float import flushed, samples

_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "ex2": np.exp2,
    "lg2": np.log2,
    "rcp": lambda x: np.float64(1) / x,
    "rsqrt": lambda x: np.float64(1) / np.sqrt(x),
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}
_CASES = [
    *((opcode, "f32") for opcode in _FUNCTIONS),
    *((opcode, "ftz.f32") for opcode in _FUNCTIONS if opcode != "tanh"),
    *(("ex2", t) for t in ("f16", "f16x2", "ftz.bf16", "ftz.bf16x2")),
    *(("tanh", t) for t in ("f16", "f16x2", "bf16", "bf16x2")),
]
# PTX promises about two units in the last place of f32, and absolute bounds for sines.
_BOUND = {"f32": 2.0**-22, "f16": 2.0**-10.9, "bf16": 2.0**-7.9}


def _double(form: str, bits: int) -> np.float64:
    value = value_of(form, bits)
    return np.float64(float(value))


def _is_near(form: str, result: int, exact: np.float64, opcode: str, *, flushes: bool) -> bool:
    value = _double(form, result)
    if not np.isfinite(exact):
        return bool(np.isnan(value) if np.isnan(exact) else value == exact)
    largest = _double(
        form, (((1 << FORMATS[form].exponent_bits) - 1) << FORMATS[form].mantissa_bits) - 1
    )
    if abs(exact) > largest:
        return bool(abs(value) >= largest and np.sign(value) == np.sign(exact))
    least = 2.0 ** (1 - FORMATS[form].bias)
    step = least if flushes else least * 2.0 ** -FORMATS[form].mantissa_bits
    bound = max(abs(exact) * _BOUND[form], step)
    if opcode in {"sin", "cos"}:
        bound = max(bound, 2.0**-20)
    return bool(abs(value - exact) <= bound)


@pytest.mark.parametrize(("opcode", "ptx_type"), _CASES)
def test_results_are_near_the_exact_ones(opcode: str, ptx_type: str) -> None:
    *modes, last = ptx_type.split(".")
    form, pairs = last.removesuffix("x2"), 2 if last.endswith("x2") else 1
    (values,) = samples(form, 1, seed=1)
    width = FORMATS[form].width
    given = [v << width | v for v in values] if pairs == 2 else values
    text = f"{opcode}.approx.{ptx_type} %x, %a;"
    found = evaluate(text, given, widths=[width * pairs], out=width * pairs)
    for bits, result in zip(values, found, strict=True):
        with np.errstate(all="ignore"):
            x = _double(form, flushed(form, bits) if modes else bits)
            exact = np.float64(_FUNCTIONS[opcode](x))
        for part in range(pairs):
            one = result >> part * width & ((1 << width) - 1)
            assert _is_near(form, one, exact, opcode, flushes=bool(modes)), (hex(bits), hex(one))


_INF, _NAN = math.inf, math.nan
# (argument, result): the tables of the PTX manual. Every NaN is the one of arithmetic.
_SPECIAL = {
    "ex2": [(0.0, 1.0), (-0.0, 1.0), (_INF, _INF), (-_INF, 0.0), (3.0, 8.0), (-1.0, 0.5)],
    "lg2": [(0.0, -_INF), (-0.0, -_INF), (_INF, _INF), (1.0, 0.0), (8.0, 3.0), (-1.0, _NAN)],
    "rcp": [(0.0, _INF), (-0.0, -_INF), (_INF, 0.0), (-_INF, -0.0), (4.0, 0.25)],
    "rsqrt": [(0.0, _INF), (-0.0, -_INF), (_INF, 0.0), (4.0, 0.5), (-1.0, _NAN), (-_INF, _NAN)],
    "sqrt": [(0.0, 0.0), (-0.0, -0.0), (_INF, _INF), (4.0, 2.0), (-1.0, _NAN), (-_INF, _NAN)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (_INF, _NAN), (-_INF, _NAN)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (_INF, _NAN), (-_INF, _NAN)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (_INF, 1.0), (-_INF, -1.0)],
}


@pytest.mark.parametrize("opcode", _FUNCTIONS)
def test_special_values_are_exact(opcode: str) -> None:
    pairs = [*_SPECIAL[opcode], (_NAN, _NAN)]
    given, expected = ([int(np.float32(pair[i]).view(np.uint32)) for pair in pairs] for i in (0, 1))
    expected = [0x7FFFFFFF if bits == 0x7FC00000 else bits for bits in expected]
    found = evaluate(f"{opcode}.approx.f32 %x, %a;", given, widths=[32], out=32)
    assert found == expected


@pytest.mark.parametrize("name", ["rcp", "rsqrt"])
def test_gross_approximations_of_doubles(name: str) -> None:
    """Of the upper half of the argument, with zeros below (PTX ISA, rcp.approx.ftz.f64)."""
    (values,) = samples("f64", 1, seed=2)
    found = evaluate(f"{name}.approx.ftz.f64 %x, %a;", values, widths=[64], out=64)
    for bits, result in zip(values, found, strict=True):
        with np.errstate(all="ignore"):
            x = _double("f64", flushed("f64", bits >> 32 << 32))
            exact = np.float64(_FUNCTIONS[name](x))
        value = _double("f64", result)
        assert result & 0xFFFFFFFF == 0, hex(bits)
        if not np.isfinite(exact) or exact == 0:
            assert np.isnan(value) if np.isnan(exact) else value == exact, hex(bits)
        elif abs(exact) < 2.0**-1022:
            assert value == 0, hex(bits)
        else:
            assert abs(value / exact - 1) < 2.0**-19, hex(bits)


@pytest.mark.parametrize("name", ["div.approx", "div.approx.ftz", "div.full", "div.full.ftz"])
def test_approximate_quotients(name: str) -> None:
    values = samples("f32", 2, seed=3)
    found = evaluate(f"{name}.f32 %x, %a, %b;", *values, widths=[32, 32], out=32)
    flushes = "ftz" in name
    for a, b, result in zip(*values, found, strict=True):
        with np.errstate(all="ignore"):
            x, y = (_double("f32", flushed("f32", v) if flushes else v) for v in (a, b))
            exact = np.float64(x / y)
        assert _is_near("f32", result, exact, "div", flushes=flushes), (hex(a), hex(b))


@pytest.mark.parametrize(
    "text",
    [
        "ex2.f32 %f1, %f2",
        "ex2.approx.f64 %d1, %d2",
        "sin.approx.f16 %h1, %h2",
        "lg2.approx.bf16 %h1, %h2",
        "rsqrt.f32 %f1, %f2",
        "rsqrt.rn.f64 %d1, %d2",
        "tanh.approx.f64 %d1, %d2",
        "sqrt.approx.f64 %d1, %d2",
        "ex2.approx.sat.f32 %f1, %f2",
        "ex2.approx.bf16 %h1, %h2",
        "ex2.approx.ftz.f16 %h1, %h2",
        "tanh.approx.ftz.f32 %f1, %f2",
    ],
)
def test_forms_that_are_not_there(text: str) -> None:
    module = simulator.load(source(f"{text};"))
    with pytest.raises(NotImplementedError):
        module["kernel"]
