"""The serve stage: prefill writes cache pages to a store, decode reads them back and goes on.

Two expert-parallel ranks serve, each with its own requests; a step of decoding is one byte of every
request that a rank has running, and a request that ends makes room for the next one.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.end_to_end.config import ModelConfig, ServeConfig
from benchmarks.end_to_end.decoder import Batcher, Request, Server
from benchmarks.end_to_end.experts import ExpertParallel
from benchmarks.end_to_end.pages import FilePageStore
from benchmarks.end_to_end.run_folder import RunError, RunFolder
from benchmarks.end_to_end.text import Bytes
from benchmarks.end_to_end.text import load as load_text
from benchmarks.end_to_end.weights import Weights, digest, load_stages
from benchmarks.ranks import Rank, RankFailed, run_ranks


@dataclass(slots=True)
class ServeFigures:
    """What came of serving.

    Attributes:
        texts: (prompt, generated) of each request.
        num_decoded: bytes that decode steps produced.
        tokens_per_s: of decoding, all requests together.
        num_pages: pages that prefill wrote and decode read.
        logit_error: decoding against the training forward over the same bytes: root mean square of
            the difference, relative to that of the logits.
        worst_logit_error: the same of the worst single byte.
        num_checked: bytes compared.
    """

    texts: list[tuple[str, str]]
    num_decoded: int
    tokens_per_s: float
    num_pages: int
    logit_error: float
    worst_logit_error: float
    num_checked: int


@dataclass(slots=True)
class _RankResult:
    tokens: list[list[int]]
    num_pages: int
    num_decoded: int
    decode_seconds: float
    squared_errors: Tensor  # [num_checked], summed over the 256 logits of a byte
    squared_logits: Tensor


def serve(
    folder: RunFolder,
    model: ModelConfig,
    config: ServeConfig,
    on_byte: Callable[[int, int], None] = lambda _done, _total: None,
) -> ServeFigures:
    """Completes a few beginnings of validation text with the weights of the run folder.

    Args:
        folder: where the train stage has left the weights, and the data stage its text.
        model: sizes of the model.
        config: how to serve.
        on_byte: called as ``on_byte(bytes_done, bytes_total)``.

    Raises:
        RunError: text or weights are not there, or a rank failed.
    """
    validation = load_text(folder)["validation"]
    weights = folder.load_arrays("weights", made_by="train")
    prompts = _prompts(validation, config.prompt_lens)
    total = sum(config.max_len - len(prompt) - 1 for prompt in prompts)
    done = 0

    def report(_rank: int, num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        on_byte(done, total)

    shutil.rmtree(folder.path / "pages", ignore_errors=True)
    try:
        results: list[_RankResult] = run_ranks(
            _serve_rank,
            config.expert_parallel,
            model,
            config,
            weights,
            prompts,
            RunFolder(folder.path / "pages"),
            timeout_s=600,
            on_report=report,
        )
    except RankFailed as error:
        raise RunError(f"serve: {error} (run it again)") from error
    figures = _figures(results, config)
    folder.save_json("serve", asdict(figures))
    return figures


def _prompts(sequences: Bytes, lengths: tuple[int, ...]) -> list[list[int]]:
    """Beginnings of these lengths, from the start of a line where a sequence has a fitting one."""
    prompts = []
    for sequence, length in zip(sequences, lengths, strict=False):
        line_ends = (sequence[: len(sequence) - length] == ord("\n")).nonzero()[0]
        begin = int(line_ends[0]) + 1 if len(line_ends) else 0
        prompts.append([int(byte) for byte in sequence[begin : begin + length]])
    return prompts


def _serve_rank(
    rank: Rank,
    model: ModelConfig,
    config: ServeConfig,
    weights: Weights,
    prompts: list[list[int]],
    pages: RunFolder,
) -> _RankResult:
    assert dist.group.WORLD is not None  # noqa: S101
    ep = ExpertParallel(dist.group.WORLD, model.num_experts)
    server = Server(model, load_stages(weights, model, ep), FilePageStore(pages), digest(weights))
    requests = [
        Request(tokens, len(tokens), config.max_len, config.seed + number, config.temperature)
        for number, tokens in enumerate(prompts)
    ][rank.rank :: rank.world_size]
    with torch.no_grad():
        num_pages = sum(server.prefill(request) for request in requests)
        batcher = Batcher(server, requests, config.max_batch)
        dist.barrier()
        begin, num_decoded = time.perf_counter(), 0
        while _any_rank(not batcher.is_done):
            num_decoded += (batch := batcher.step())
            rank.report(batch)
        seconds = time.perf_counter() - begin
        errors, logits = _compare(server, requests)
    return _RankResult(
        [request.tokens for request in requests], num_pages, num_decoded, seconds, errors, logits
    )


def _any_rank(condition: bool) -> bool:
    flag = torch.tensor(int(condition))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def _compare(server: Server, requests: list[Request]) -> tuple[Tensor, Tensor]:
    """The training forward over the bytes that were decoded, against the logits they came from."""
    x = torch.tensor([request.tokens for request in requests])
    for stage in server.stages:
        x = stage(x)
    expected, actual = [], []
    for request, logits in zip(requests, x, strict=True):
        # The logits of a byte are at the place of the byte before; the first came from prefill.
        expected.append(logits[request.prompt_len : -1])
        actual.append(torch.stack(request.logits[1:]))
    errors = (torch.cat(actual) - torch.cat(expected)).square().sum(dim=1)
    return errors, torch.cat(expected).square().sum(dim=1)


def _figures(results: list[_RankResult], config: ServeConfig) -> ServeFigures:
    errors = torch.cat([result.squared_errors for result in results])
    logits = torch.cat([result.squared_logits for result in results])
    # Requests were dealt out to the ranks in turn.
    dealt = [result.tokens for result in results]
    tokens = [rank_tokens[turn] for turn in range(len(dealt[0])) for rank_tokens in dealt]
    num_decoded = sum(result.num_decoded for result in results)
    return ServeFigures(
        texts=[
            (_text(each[:length]), _text(each[length:]))
            for each, length in zip(tokens, config.prompt_lens, strict=True)
        ],
        num_decoded=num_decoded,
        tokens_per_s=num_decoded / max(result.decode_seconds for result in results),
        num_pages=sum(result.num_pages for result in results),
        logit_error=float((errors.sum() / logits.sum()).sqrt()),
        worst_logit_error=float((errors / logits).max().sqrt()),
        num_checked=len(errors),
    )


def _text(tokens: list[int]) -> str:
    return bytes(tokens).decode("utf-8", errors="replace")
