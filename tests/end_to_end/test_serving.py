"""The absorbed, paged form of the model against its training form; pages; batching."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.end_to_end.attention import Attention, DecodeBatch
from benchmarks.end_to_end.config import ModelConfig
from benchmarks.end_to_end.decoder import Batcher, Request, Server
from benchmarks.end_to_end.experts import ExpertParallel
from benchmarks.end_to_end.model import Stage
from benchmarks.end_to_end.pages import FilePageStore, page_key
from benchmarks.end_to_end.run_folder import RunFolder
from benchmarks.ranks import Rank
from tests.forked_pool import ForkedPool

_CONFIG = ModelConfig()


def _attention() -> Attention:
    attention = Attention(_CONFIG)
    torch.nn.init.normal_(attention.output.weight, std=0.1)
    return attention


def _decode_all(attention: Attention, x: Tensor, num_shared_pages: int = 8) -> Tensor:
    """Each token of x [batch, seq, hidden] by the serving form, from pages in a random order."""
    batch, seq, _ = x.shape
    each = -(-seq // _CONFIG.page_size)
    order = torch.randperm(batch * each + num_shared_pages).tolist()
    pages = [order[row * each : (row + 1) * each] for row in range(batch)]
    # What no request has written must not be read.
    shape = len(order), _CONFIG.page_size, 1, _CONFIG.latent_dim
    cache = torch.full(shape, torch.nan, dtype=torch.bfloat16)
    out = []
    for position in range(seq):
        step = DecodeBatch.of([position] * batch, pages, _CONFIG.num_heads)
        out.append(attention.decode(x[:, position : position + 1], cache, step))
    return torch.cat(out, dim=1)


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("seq", [1, 63, 64, 65, 130])
def test_absorbed_attention_is_the_training_form(seq: int) -> None:
    with torch.no_grad():
        attention, x = _attention(), torch.randn(2, seq, _CONFIG.hidden)
        expected, actual = attention(x), _decode_all(attention, x)
    # The cache, the queries and the output are bf16, each rounded by 2^-9 at most.
    error = (actual - expected).norm() / expected.norm()
    assert error < 3 * 2**-9


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("shift", [1, 64])
def test_a_wrong_position_would_be_seen(shift: int) -> None:
    with torch.no_grad():
        attention, x = _attention(), torch.randn(1, 100, _CONFIG.hidden)
        expected = attention(x)[:, -1]
        cache = torch.zeros(4, _CONFIG.page_size, 1, _CONFIG.latent_dim, dtype=torch.bfloat16)
        rows = attention.latents(x, torch.arange(100)).to(torch.bfloat16)
        cache.view(-1, _CONFIG.latent_dim)[:100] = rows[0].roll(shift, 0)
        step = DecodeBatch.of([99], [[0, 1]], _CONFIG.num_heads)
        actual = attention.decode(x[:, -1:], cache, step)[:, 0]
    assert (actual - expected).norm() / expected.norm() > 0.02


def _server(folder: Path) -> Server:
    assert dist.group.WORLD is not None
    ep = ExpertParallel(dist.group.WORLD, _CONFIG.num_experts)
    torch.manual_seed(0)
    stages = [Stage(_CONFIG, stage_idx, ep, seed=1) for stage_idx in range(_CONFIG.num_stages)]
    with torch.no_grad():
        for stage in stages:
            for parameter in stage.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)
    return Server(_CONFIG, stages, FilePageStore(RunFolder(folder)), "these weights")


def _requests(lengths: list[tuple[int, int]]) -> list[Request]:
    return [
        Request([7 * (number + 1) % 256] * prompt_len, prompt_len, max_len, number, 1.0)
        for number, (prompt_len, max_len) in enumerate(lengths)
    ]


def _generate(
    _rank: Rank, folder: Path, lengths: list[tuple[int, int]], max_batch: int
) -> tuple[list[list[int]], list[int]]:
    """(tokens of each request, batch of each step)."""
    server, requests = _server(folder), _requests(lengths)
    with torch.no_grad():
        for request in requests:
            server.prefill(request)
        batcher, batches = Batcher(server, requests, max_batch), []
        while not batcher.is_done:
            batches.append(batcher.step())
    return [request.tokens for request in requests], batches


_LENGTHS = [(5, 12), (64, 70), (65, 66), (70, 140)]


def test_requests_join_as_others_end(ranks: ForkedPool, tmp_path: Path) -> None:
    ((tokens, batches),) = ranks.run(_generate, 1, tmp_path, _LENGTHS, 2)
    assert [len(each) for each in tokens] == [max_len for _, max_len in _LENGTHS]
    # One byte of each comes from prefill; the third ends there and needs no step of decoding.
    assert sum(batches) == (12 - 5 - 1) + (70 - 64 - 1) + (140 - 70 - 1)
    assert batches[:5] == [2] * 5


def test_a_request_s_text_does_not_depend_on_the_others(ranks: ForkedPool, tmp_path: Path) -> None:
    ((alone, _),) = ranks.run(_generate, 1, tmp_path / "a", _LENGTHS, 1)
    ((together, _),) = ranks.run(_generate, 1, tmp_path / "b", _LENGTHS, 4)
    assert alone == together


def test_page_store_gives_back_what_was_put(tmp_path: Path) -> None:
    store = FilePageStore(RunFolder(tmp_path / "pages"))
    page = torch.randn(4, 3, 576).to(torch.bfloat16)
    page[0, 0, 0] = torch.nan
    store.put("key", page[:, 1:])  # not contiguous
    found = store.get("key").view(4, 2, 576)
    assert torch.equal(found.view(torch.int16), page[:, 1:].contiguous().view(torch.int16))
    with pytest.raises(KeyError, match="other"):
        store.get("other")
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["key.page"]


def test_page_keys_tell_weights_and_prefixes_apart() -> None:
    keys = {page_key(weights, tokens) for weights in "ab" for tokens in ([1], [2], [1, 2], [2, 1])}
    assert len(keys) == 8
