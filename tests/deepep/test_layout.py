"""What needs no second rank: the layout, the configuration, events, the drop-in name."""

import importlib
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import deepep
from deepep import Buffer, Config, EventHandle, EventOverlap
from deepep.layout import dispatch_layout
from tests.strategies import routings


@given(data=st.data(), num_ranks=st.sampled_from([1, 2, 3, 8]), num_local=st.integers(1, 3))
def test_layout_counts(data: st.DataObject, num_ranks: int, num_local: int) -> None:
    num_experts = num_ranks * num_local
    topk_idx = data.draw(routings(num_experts))
    per_rank, per_expert, in_rank = dispatch_layout(topk_idx, num_experts, num_ranks)

    chosen = [[e for e in row if e != -1] for row in topk_idx.tolist()]
    ranks_of = [{e // num_local for e in row} for row in chosen]
    assert per_rank.tolist() == [sum(r in s for s in ranks_of) for r in range(num_ranks)]
    assert per_expert.tolist() == [sum(e in c for c in chosen) for e in range(num_experts)]
    assert in_rank.tolist() == [[r in s for r in range(num_ranks)] for s in ranks_of]
    assert (per_rank.dtype, per_expert.dtype) == (torch.int32, torch.int32)
    assert (in_rank.dtype, in_rank.is_contiguous()) == (torch.bool, True)


# Published sizes of the default configuration for bf16 rows of 7168: 336, 378 and 944 MB.
@pytest.mark.parametrize(
    ("num_ranks", "nvl_mb", "rdma_mb"), [(8, 336, 0), (64, 378, 336), (160, 944, 840)]
)
def test_size_hints(num_ranks: int, nvl_mb: int, rdma_mb: int) -> None:
    nvl = Buffer.get_dispatch_config(num_ranks).get_nvl_buffer_size_hint(14336, num_ranks)
    rdma = Buffer.get_combine_config(num_ranks).get_rdma_buffer_size_hint(14336, num_ranks)
    assert nvl / 1e6 == pytest.approx(nvl_mb, abs=1)
    assert rdma / 1e6 == pytest.approx(rdma_mb, abs=1)
    assert nvl % 128 == rdma % 128 == 0


def test_config_is_checked_and_rounded() -> None:
    assert Config(20, 6, 256, 6, 128).num_max_rdma_chunked_recv_tokens == 132
    assert Config(num_sms=24).num_sms == 24
    with pytest.raises(ValueError, match="Config: num_max_nvl_chunked_send_tokens must be between"):
        Config(20, 256, 256)
    with pytest.raises(ValueError, match="num_max_rdma_chunked_send_tokens must be between 1 and"):
        Config(20, 6, 256, 70, 60)
    with pytest.raises(ValueError, match="num_sms must be a positive even number, got 21"):
        Config(21)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 8, 16, 24, 40, 64, 96, 128, 144, 160])
def test_default_configs_exist_up_to_160_ranks(num_ranks: int) -> None:
    for config in (Buffer.get_dispatch_config(num_ranks), Buffer.get_combine_config(num_ranks)):
        assert config.num_sms == Buffer.num_sms
    with pytest.raises(ValueError, match="get_combine_config: num_ranks must be between 1 and 160"):
        Buffer.get_combine_config(161)


def test_num_sms_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Buffer, "num_sms", 20)
    Buffer.set_num_sms(24)
    assert Buffer.num_sms == Buffer.get_dispatch_config(8).num_sms == 24
    with pytest.raises(ValueError, match="set_num_sms: num_sms must be a positive even number"):
        Buffer.set_num_sms(7)


def test_event_finishes_once() -> None:
    calls: list[str] = []
    with EventOverlap(EventHandle(lambda: calls.append("finished"))) as event:
        assert calls == []
    event.current_stream_wait()
    assert calls == ["finished"]
    EventOverlap(None).current_stream_wait()
    Buffer.capture().current_stream_wait()


def test_event_lets_an_error_of_the_body_pass() -> None:
    def never() -> None:
        raise AssertionError

    def body() -> None:
        with EventOverlap(EventHandle(never)):
            raise KeyError("body")

    with pytest.raises(KeyError, match="body"):
        body()


def test_install_as_deep_ep(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("deep_ep", "deep_ep.utils"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(deepep, "utils", None, raising=False)
    deepep.install_as_deep_ep()
    installed = importlib.import_module("deep_ep")
    events = importlib.import_module("deep_ep.utils")
    assert installed.Buffer is Buffer
    assert installed.topk_idx_t is torch.int64
    assert (events.EventHandle, events.EventOverlap) == (EventHandle, EventOverlap)
    assert installed.utils is events
