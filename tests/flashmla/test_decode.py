"""flash_mla_with_kvcache against float64, with NaN wherever no request reaches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flashmla import FlashMLASchedMeta, flash_mla_with_kvcache, get_mla_metadata
from tests.comparison import assert_matches
from tests.conftest import Backend
from tests.oracles import mla_decode as oracle
from tests.strategies import GARBAGE_PAGE, PagedCache, paged_caches

DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
SCALE = 576**-0.5


def scattered(page_size: int, lengths: list[int]) -> PagedCache:
    """Pages in random order, one to spare, garbage behind the last page of a request."""
    page_counts = [-(-length // page_size) for length in lengths]
    num_pages = sum(page_counts) + 1
    pages = iter(torch.randperm(num_pages).tolist())
    block_table = torch.full((len(lengths), max([1, *page_counts])), GARBAGE_PAGE).int()
    for request, count in enumerate(page_counts):
        block_table[request, :count] = torch.tensor([next(pages) for _ in range(count)])
    return PagedCache(page_size, num_pages, torch.tensor(lengths).int(), block_table)


def random_tokens(cache: PagedCache, num_heads_kv: int, dtype: torch.dtype) -> Tensor:
    """A pool that is NaN but for the tokens of the requests."""
    shape = (cache.num_pages, cache.page_size, num_heads_kv, 576)
    k_cache = torch.full(shape, torch.nan, dtype=dtype)
    for table, length in zip(cache.block_table, cache.cache_seqlens.tolist(), strict=True):
        for token in range(length):
            page = table[token // cache.page_size]
            k_cache[page, token % cache.page_size] = torch.randn(num_heads_kv, 576)
    return k_cache


def decode(
    backend: Backend,
    q: Tensor,
    k_cache: Tensor,
    cache: PagedCache,
    *,
    causal: bool,
    softmax_scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    metadata, num_splits = get_mla_metadata()
    with backend.run():
        return flash_mla_with_kvcache(
            q.to(backend.device),
            k_cache.to(backend.device),
            cache.block_table.to(backend.device),
            cache.cache_seqlens.to(backend.device),
            512,
            metadata,
            num_splits,
            softmax_scale=softmax_scale,
            causal=causal,
        )


def assert_lse_matches(lse: Tensor, expected: Tensor) -> None:
    """The error of a score is that of the logarithm, however near 0 the logarithm is."""
    _, h_q, s_q = expected.shape
    assert lse.dtype == torch.float32
    far_from_0 = 64
    assert_matches(
        lse.double() + far_from_0,
        expected + far_from_0,
        dtype=torch.float64,
        strides=(h_q * s_q, s_q, 1),
        rtol=2e-7,
    )


def check_random_case(
    backend: Backend,
    cache: PagedCache,
    *,
    s_q: int = 1,
    h_q: int = 4,
    h_kv: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    causal: bool = True,
) -> None:
    # Twice a normal distribution: scores spread by 2 or so, far from a uniform softmax.
    q = (2 * torch.randn(len(cache.cache_seqlens), s_q, h_q, 576)).to(dtype)
    k_cache = random_tokens(cache, h_kv, dtype)
    out, lse = decode(backend, q, k_cache, cache, causal=causal)
    expected_out, expected_lse = oracle.dense_decode(
        q, k_cache, cache.block_table, cache.cache_seqlens, SCALE, causal=causal
    )
    assert_matches(out, expected_out, dtype=dtype, strides=(s_q * h_q * 512, h_q * 512, 512, 1))
    assert_lse_matches(lse, expected_lse)


@DTYPES
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("s_q", [1, 2, 3])
def test_tile_edges(
    backend: Backend, seed: int, dtype: torch.dtype, s_q: int, causal: bool
) -> None:
    cache = scattered(64, [0, 1, 2, 63, 64, 65, 129])
    check_random_case(backend, cache, s_q=s_q, dtype=dtype, causal=causal)


@pytest.mark.parametrize("h_kv", [1, 2, 3])
@pytest.mark.parametrize("num_sharing", [1, 3, 8])
def test_heads(backend: Backend, seed: int, h_kv: int, num_sharing: int) -> None:
    cache = scattered(64, [70, 3])
    check_random_case(backend, cache, s_q=2, h_q=h_kv * num_sharing, h_kv=h_kv)


@pytest.mark.parametrize("page_size", [1, 16, 64, 100])
def test_page_sizes(backend: Backend, seed: int, page_size: int) -> None:
    check_random_case(backend, scattered(page_size, [0, 99, 100, 101]))


@pytest.mark.parametrize("h_q", [16, 128])
def test_model_shape(backend: Backend, seed: int, h_q: int) -> None:
    check_random_case(backend, scattered(64, [300, 517]), s_q=2, h_q=h_q)


@pytest.mark.parametrize(
    ("lengths", "s_q"),
    [
        pytest.param([], 1, id="no-requests"),
        pytest.param([0], 1, id="an-empty-request"),
        pytest.param([0, 0, 0], 2, id="empty-requests"),
        pytest.param([2], 5, id="more-queries-than-tokens"),
    ],
)
def test_little_to_see(backend: Backend, seed: int, lengths: list[int], s_q: int) -> None:
    check_random_case(backend, scattered(64, lengths), s_q=s_q)


@settings(max_examples=25)
@given(
    cache=paged_caches(),
    s_q=st.integers(1, 3),
    causal=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_cache(backend: Backend, cache: PagedCache, s_q: int, causal: bool, seed: int) -> None:
    torch.manual_seed(seed)
    check_random_case(backend, cache, s_q=s_q, h_q=2, causal=causal)


def test_where_the_pages_lie_changes_nothing(backend: Backend, seed: int) -> None:
    cache = scattered(64, [130, 0, 64])
    q = torch.randn(3, 1, 4, 576).bfloat16()
    k_cache = random_tokens(cache, 1, torch.bfloat16)
    moved_to = torch.randperm(cache.num_pages)
    moved_cache = torch.empty_like(k_cache)
    moved_cache[moved_to] = k_cache
    used = cache.block_table != GARBAGE_PAGE
    moved_table = cache.block_table.clone()
    moved_table[used] = moved_to[cache.block_table[used]].int()
    moved = PagedCache(64, cache.num_pages, cache.cache_seqlens, moved_table)
    for got, expected in zip(
        decode(backend, q, moved_cache, moved, causal=True),
        decode(backend, q, k_cache, cache, causal=True),
        strict=True,
    ):
        assert torch.equal(got, expected)


def test_softmax_scale(backend: Backend, seed: int) -> None:
    cache = scattered(64, [100])
    q = torch.randn(1, 1, 2, 576).bfloat16()
    k_cache = random_tokens(cache, 1, torch.bfloat16)
    out, lse = decode(backend, q, k_cache, cache, causal=True, softmax_scale=0.1)
    expected = oracle.dense_decode(
        q, k_cache, cache.block_table, cache.cache_seqlens, 0.1, causal=True
    )
    assert_matches(out, expected[0], dtype=torch.bfloat16)
    assert_lse_matches(lse, expected[1])


def test_large_scores(backend: Backend, seed: int) -> None:
    """Scores in the hundreds: exp of them overflows unless the largest is subtracted."""
    cache = scattered(64, [100])
    q = 40 * torch.randn(1, 1, 2, 576).bfloat16()
    k_cache = random_tokens(cache, 1, torch.bfloat16)
    out, lse = decode(backend, q, k_cache, cache, causal=True, softmax_scale=1.0)
    expected = oracle.dense_decode(
        q, k_cache, cache.block_table, cache.cache_seqlens, 1.0, causal=True
    )
    assert_matches(out, expected[0], dtype=torch.bfloat16)
    assert_lse_matches(lse, expected[1])


def test_strided_inputs(backend: Backend, seed: int) -> None:
    """Heads, blocks and table rows apart, NaN and garbage between them."""
    cache = scattered(64, [100, 64])
    q = torch.randn(2, 2, 4, 576).bfloat16()
    k_cache = random_tokens(cache, 1, torch.bfloat16)
    wide_q = torch.full((2, 2, 6, 640), torch.nan, dtype=torch.bfloat16)
    wide_q[:, :, 1:5, 8:584] = q
    wide_k = torch.full((cache.num_pages, 66, 1, 576), torch.nan, dtype=torch.bfloat16)
    wide_k[:, :64] = k_cache
    wide_table = torch.full((2, 5), GARBAGE_PAGE, dtype=torch.int32)
    wide_table[:, :2] = cache.block_table
    with backend.run():
        out, lse = flash_mla_with_kvcache(
            wide_q.to(backend.device)[:, :, 1:5, 8:584],
            wide_k.to(backend.device)[:, :64],
            wide_table.to(backend.device)[:, :2],
            cache.cache_seqlens.to(backend.device),
            512,
            get_mla_metadata()[0],
            causal=True,
        )
    expected = oracle.dense_decode(
        q, k_cache, cache.block_table, cache.cache_seqlens, SCALE, causal=True
    )
    assert_matches(out, expected[0], dtype=torch.bfloat16)
    assert_lse_matches(lse, expected[1])


def test_one_schedule_serves_all_layers(backend: Backend, seed: int) -> None:
    cache = scattered(64, [100])
    k_cache = random_tokens(cache, 1, torch.bfloat16).to(backend.device)
    q = torch.randn(1, 1, 4, 576).bfloat16().to(backend.device)
    table = cache.block_table.to(backend.device)
    lengths = cache.cache_seqlens.to(backend.device)
    metadata = FlashMLASchedMeta()
    assert not metadata.have_initialized
    with backend.run():
        first = flash_mla_with_kvcache(q, k_cache, table, lengths, 512, metadata)
        assert metadata.have_initialized
        again = flash_mla_with_kvcache(q, k_cache, table, lengths, 512, metadata)
        assert torch.equal(first[0], again[0])
        with pytest.raises(ValueError, match="tile_scheduler_metadata must serve calls of one"):
            flash_mla_with_kvcache(q[:, :, :2], k_cache, table, lengths, 512, metadata)


def test_schedule_of_the_older_api(backend: Backend, seed: int) -> None:
    cache = scattered(64, [100])
    k_cache = random_tokens(cache, 1, torch.bfloat16)
    q = torch.randn(1, 1, 4, 576).bfloat16()
    tensors = (torch.zeros(4, 8, dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32))
    out, lse = flash_mla_with_kvcache(
        q, k_cache, cache.block_table, cache.cache_seqlens, 512, *tensors, None, True
    )
    expected = decode(backend, q, k_cache, cache, causal=True)
    assert torch.equal(out, expected[0])
    assert torch.equal(lse, expected[1])


def test_records_no_gradient(backend: Backend, seed: int) -> None:
    cache = scattered(64, [1])
    q = torch.randn(1, 1, 4, 576).bfloat16().requires_grad_()
    out, lse = decode(backend, q, random_tokens(cache, 1, torch.bfloat16), cache, causal=True)
    assert not out.requires_grad
    assert not lse.requires_grad
