"""The names of the package, its examples, and standing in for deep_gemm."""

import doctest
import importlib
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import deepgemm
from deepgemm import dropin, not_built


def test_every_name_is_there() -> None:
    assert all(hasattr(deepgemm, name) for name in deepgemm.__all__)


@pytest.mark.parametrize(
    "module", ["bf16", "dense", "layout", "quantization", "scales", "settings", "testing"]
)
def test_docstring_examples(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"deepgemm.{module}"))
    assert results.attempted > 0
    assert results.failed == 0


ALIASES = {
    **{f"fp8_fp4_gemm_{layout}": f"fp8_gemm_{layout}" for layout in ("nt", "nn", "tn", "tt")},
    "m_grouped_fp8_fp4_gemm_nt_contiguous": "m_grouped_fp8_gemm_nt_contiguous",
    "m_grouped_fp8_fp4_gemm_nn_contiguous": "m_grouped_fp8_gemm_nn_contiguous",
    "m_grouped_fp8_fp4_gemm_nt_masked": "m_grouped_fp8_gemm_nt_masked",
    "fp8_m_grouped_gemm_nt_masked": "m_grouped_fp8_gemm_nt_masked",
    "bf16_m_grouped_gemm_nt_masked": "m_grouped_bf16_gemm_nt_masked",
    "get_m_alignment_for_contiguous_layout": "get_mk_alignment_for_contiguous_layout",
    "get_k_alignment_for_contiguous_layout": "get_mk_alignment_for_contiguous_layout",
    "get_col_major_tma_aligned_tensor": "get_mn_major_tma_aligned_tensor",
    "cell_div": "ceil_div",
}


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_aliases_are_the_same_object(alias: str, name: str) -> None:
    assert getattr(deepgemm, alias) is getattr(deepgemm, name)


QUANTISED = "recipe=None, recipe_a=None, recipe_b=None, compiled_dims={}, disable_ue8m0_cast=False"
NK, MN = QUANTISED.format("'nk'"), QUANTISED.format("'mn'")
PSUM = "use_psum_layout=False, ensure_zero_padding=True"
K_GROUPED = "compiled_dims='mn', use_psum_layout=False"
# As callers write them: positions, keywords, defaults.
SIGNATURES = {
    "fp8_gemm_nt": f"a, b, d, c=None, {NK}",
    "fp8_gemm_nn": f"a, b, d, c=None, {NK}",
    "fp8_gemm_tn": f"a, b, d, c=None, {MN}",
    "fp8_gemm_tt": f"a, b, d, c=None, {MN}",
    "gemm_fp8_fp8_bf16_nt": "lhs, rhs, out",
    "wgrad_gemm_fp8_fp8_fp32_nt": "lhs, rhs, out",
    "k_grouped_wgrad_gemm_fp8_fp8_fp32_nt": "lhs, rhs, out, batch_sizes",
    "m_grouped_gemm_fp8_fp8_bf16_nt_contiguous": "lhs, rhs, out, m_indices",
    "m_grouped_gemm_fp8_fp8_bf16_nt_masked": "lhs, rhs, out, masked_m, expected_m",
    "m_grouped_fp8_gemm_nt_contiguous": (
        f"a, b, d, grouped_layout=None, {NK}, {PSUM}, expected_m_for_psum_layout=None"
    ),
    "m_grouped_fp8_gemm_nn_contiguous": f"a, b, d, grouped_layout=None, {NK}, {PSUM}",
    "m_grouped_fp8_gemm_nt_masked": f"a, b, d, masked_m, expected_m, {NK}",
    "k_grouped_fp8_gemm_nt_contiguous": (
        f"a, b, d, ks_cpu=None, grouped_layout=None, c=None, recipe=(1, 1, 128), {K_GROUPED}"
    ),
    "k_grouped_fp8_gemm_tn_contiguous": (
        f"a, b, d, ks_cpu=None, grouped_layout=None, c=None, recipe=(1, 1, 128), {K_GROUPED}"
    ),
    "k_grouped_bf16_gemm_tn_contiguous": (
        f"a, b, d, ks_cpu=None, grouped_layout=None, c=None, {K_GROUPED}"
    ),
    "bf16_gemm_nt": "a, b, d, c=None, compiled_dims='nk'",
    "bf16_gemm_nn": "a, b, d, c=None, compiled_dims='nk'",
    "bf16_gemm_tn": "a, b, d, c=None, compiled_dims='mn'",
    "bf16_gemm_tt": "a, b, d, c=None, compiled_dims='mn'",
    "m_grouped_bf16_gemm_nt_contiguous": (
        f"a, b, d, grouped_layout=None, compiled_dims='nk', {PSUM}, expected_m_for_psum_layout=None"
    ),
    "m_grouped_bf16_gemm_nn_contiguous": (
        f"a, b, d, grouped_layout=None, compiled_dims='nk', {PSUM}"
    ),
    "m_grouped_bf16_gemm_nt_masked": "a, b, d, masked_m, expected_m, compiled_dims='nk'",
    "transform_sf_into_required_layout": (
        "sf, mn, k, recipe, num_groups=None, is_sfa=None, disable_ue8m0_cast=False,"
        " psum_layout=None"
    ),
    "get_mn_major_tma_aligned_packed_ue8m0_tensor": "sf, psum_layout=None",
    "per_custom_dims_cast_to_fp8": "x, dims, use_ue8m0",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    """Keyword-only arguments are older names; they come behind the others."""
    parameters = inspect.signature(getattr(deepgemm, name)).parameters.values()
    shown = [
        parameter.name
        if parameter.default is parameter.empty
        else f"{parameter.name}={parameter.default!r}"
        for parameter in parameters
        if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    assert ", ".join(shown) == SIGNATURES[name]


# By whom each is looked up: inference engines and model libraries, and this module's first users.
LOOKED_UP = """
fp8_gemm_nt m_grouped_fp8_gemm_nt_contiguous fp8_m_grouped_gemm_nt_masked fp8_mqa_logits
fp8_paged_mqa_logits get_paged_mqa_logits_metadata get_mn_major_tma_aligned_tensor
get_mk_alignment_for_contiguous_layout transform_sf_into_required_layout get_num_sms
gemm_fp8_fp8_bf16_nt m_grouped_gemm_fp8_fp8_bf16_nt_contiguous set_num_sms set_pdl get_pdl
m_grouped_gemm_fp8_fp8_bf16_nt_masked get_col_major_tma_aligned_tensor cell_div
bf16_gemm_nt m_grouped_bf16_gemm_nt_contiguous tf32_hc_prenorm_gemm get_compile_mode
set_compile_mode fp8_fp4_gemm_nt m_grouped_fp8_fp4_gemm_nt_contiguous
m_grouped_bf16_gemm_nn_contiguous get_mn_major_tma_aligned_packed_ue8m0_tensor
transform_weights_for_mega_moe get_symm_buffer_for_mega_moe fp8_fp4_mega_moe bench calc_diff
bench_kineto einsum fp8_einsum fp8_fp4_mqa_logits fp8_fp4_paged_mqa_logits cublaslt_gemm_nt
"""


def test_names_that_are_looked_up() -> None:
    missing = [name for name in LOOKED_UP.split() if not callable(getattr(deepgemm, name, None))]
    assert missing == []
    assert set(LOOKED_UP.split()) <= set(deepgemm.__all__)


def test_what_is_not_built_says_so() -> None:
    stubs = [name for name in vars(not_built) if not name.startswith("_") and name[0] != "A"]
    stubs = [name for name in stubs if getattr(deepgemm, name, None) is vars(not_built)[name]]
    assert len(stubs) == 21
    for name in stubs:
        with pytest.raises(NotImplementedError, match=rf"^{name}: .+ is not built \(.+\)$"):
            getattr(deepgemm, name)(1, 2, keyword=3)


def test_sizes() -> None:
    assert [deepgemm.ceil_div(x, 128) for x in (0, 1, 128, 129)] == [0, 1, 1, 2]
    assert deepgemm.get_m_alignment_for_contiguous_layout() == 128
    assert deepgemm.get_mk_alignment_for_contiguous_layout() == 128


@pytest.fixture
def deep_gemm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package under the other name; what install writes is taken back after the test."""
    for name in ("", ".testing", *(f".{name}" for name in dropin._SUBMODULES)):
        monkeypatch.setitem(sys.modules, f"deep_gemm{name}", deepgemm)
        del sys.modules[f"deep_gemm{name}"]
    written = [(deepgemm, "utils"), (deepgemm, "jit_kernels")]
    for module, name in [*written, (deepgemm.testing, "numeric"), (deepgemm.testing, "utils")]:
        monkeypatch.setattr(module, name, None, raising=False)
        delattr(module, name)
    deepgemm.install_as_deep_gemm()
    return importlib.import_module("deep_gemm")


def test_stands_in_for_deep_gemm(deep_gemm: ModuleType) -> None:
    assert deep_gemm.fp8_gemm_nt is deepgemm.fp8_gemm_nt
    assert deep_gemm.testing.calc_diff is deepgemm.calc_diff
    assert importlib.import_module("deep_gemm.testing") is deepgemm.testing
    deepgemm.install_as_deep_gemm()
    assert importlib.import_module("deep_gemm") is deep_gemm


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("utils", "per_token_cast_to_fp8 per_channel_cast_to_fp8 per_block_cast_to_fp8 align"),
        ("utils", "ceil_div ceil_to_ue8m0 pack_ue8m0_to_int per_custom_dims_cast_to_fp8"),
        ("utils", "get_mn_major_tma_aligned_tensor get_mk_alignment_for_contiguous_layout"),
        ("utils.math", "ceil_div align per_token_cast_to_fp8 per_token_cast_to_fp4"),
        ("utils.layout", "get_mn_major_tma_aligned_packed_ue8m0_tensor"),
        ("jit_kernels.utils", "get_tma_aligned_size ceil_div get_col_major_tma_aligned_tensor"),
        ("testing", "bench bench_kineto calc_diff count_bytes assert_bitwise_equal"),
        ("testing", "get_arch_major test_filter ignore_env"),
        ("testing.numeric", "calc_diff count_bytes"),
    ],
)
def test_submodules_of_deep_gemm(deep_gemm: ModuleType, module: str, names: str) -> None:
    imported = importlib.import_module(f"deep_gemm.{module}")
    by_attribute = deep_gemm
    for part in module.split("."):
        by_attribute = getattr(by_attribute, part)
    for name in names.split():
        assert callable(getattr(imported, name))
        assert getattr(by_attribute, name) is getattr(imported, name)
        assert getattr(deepgemm, name, getattr(imported, name)) is getattr(imported, name)


def test_import_initialises_no_gpu() -> None:
    code = "import deepgemm, torch, sys; sys.stdout.write(str(torch.cuda.is_initialized()))"
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert made.stdout == "False"
