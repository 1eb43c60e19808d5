"""Which names are communication, which wait, and which only look like it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.trace.model import NONE, Kind
from benchmarks.trace.rules import Role, Rule, classify, function_name, verdict
from benchmarks.trace.user_rules import RulesError, read_rules
from tests.trace.built import trace_of

PAYLOAD = {
    "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevComm*, unsigned long, ncclWork*)": "all_reduce",
    "ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)": (
        "reduce_scatter"
    ),
    "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)": "send/recv",
    "ncclKernel_AllGather_RING_LL_Sum_int8_t(ncclDevComm*, unsigned long, ncclWork*)": "all_gather",
    "ncclAllReduceRingLLKernel_sum_f32(ncclColl)": "all_reduce",
    "ncclSymkDevKernel_AllReduce_RSxLD_AGxST(ncclSymkDevWorkArgs)": "all_reduce",
    "ncclDevKernel_Generic(ncclDevKernelArgsStorage<4096ul>)": "other",
    "void dpsk::ep::internode::dispatch<8, 20>(int4*, float*, nvshmem_team*)": "dispatch",
    "void dpsk::ep::internode::combine<8, __nv_bfloat16>(int4*)": "combine",
    "void deep_ep::intranode::dispatch<8, 768, 8192>(int4*, float*)": "dispatch",
    "void deep_ep::internode::combine<false, 4, __nv_bfloat16, 2>(int4*)": "combine",
    "openweek::deepep::dispatch_sm90_kernel(openweek::deepep::DispatchParams)": "dispatch",
    "combine_sm90_kernel": "combine",
    "dispatch": "dispatch",
    "combine backward": "combine",
    "send": "send/recv",
    "gradient sync": "gradient sync",
    "nvshmemi_transfer_rma_kernel(int*)": "other",
    "void c10d::symmetric_memory::one_shot_all_reduce_kernel<float, 16>(float**)": "all_reduce",
    "multimem_all_gather_kernel<16>": "all_gather",
    "all_to_all_vdev_2d_kernel": "all_to_all",
    "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 8>(vllm::RankData*)": "all_reduce",
    "c10d::alltoall_base_": "all_to_all",
    "c10d::allreduce_": "all_reduce",
    "c10d::recv_": "send/recv",
    "_c10d_functional::reduce_scatter_tensor": "reduce_scatter",
    "gloo:all_to_all": "all_to_all",
    "record_param_comms": "other",
    "Memcpy PtoP (Device -> Device)": "peer copy",
}
LOW_LATENCY = {
    "void deep_ep::internode_ll::dispatch<true, false, 3, 10, 7168>(void*, float*)": "dispatch",
    "void deep_ep::internode_ll::combine<3, 10, 7168, 9, 9>(void*)": "combine",
    "void dispatch_ll<3, 7168>(void*)": "dispatch",
    "combine_ll": "combine",
}
WAITING = {
    "void dpsk::ep::internode::cached_notify<false, 8>(int, nvshmem_team*)": "notify",
    "void deep_ep::intranode::notify_dispatch<8>(int const*, int*)": "dispatch",
    "void deep_ep::internode::notify_dispatch<false, 16>(int const*, nvshmem_team*)": "dispatch",
    "void deep_ep::intranode::barrier<8>(int**, int)": "barrier",
    "deep_ep::internode_ll::clean_low_latency_buffer<256>(int*, int)": "other",
    "nvshmemi_barrier_all_on_stream_kernel": "barrier",
    "void barrier_on_stream_kernel_threadgroup<0>(int, int)": "barrier",
    "c10d::barrier": "barrier",
    "gloo:barrier": "barrier",
    "_c10d_functional::wait_tensor": "wait",
    "void c10d::symmetric_memory::barrier_kernel(unsigned int**)": "barrier",
}
COMPUTE = [
    # Names of communication in template arguments and parameters.
    "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, all_reduce> >(int)",
    "void at::native::vectorized_elementwise_kernel<4, dispatch<ncclDevKernel_AllReduce> >(int)",
    "void at::native::elementwise_kernel<128, 2, at::native::broadcast_add>(int, nvshmem_team*)",
    "void at::native::(anonymous namespace)::dispatch_scatter_gather_kernel<int>(int)",
    "c10::Dispatcher::callBoxed",
    "void c10::impl::dispatch<int>(int)",
    # Inductor: what was fused into it, collectives it waited for included.
    "triton_poi_fused__to_copy_add_all_reduce_wait_tensor_0",
    "triton_red_fused_all_to_all_single_view_1",
    "void dpsk::ep::layout::get_dispatch_layout<256, 32, 8>(long const*, int*)",
    "void deep_ep::layout::get_dispatch_layout<256, 32, 8>(long const*, int*)",
    "void dpsk::grouped_gemm::cuda::fp8_gemm<128>(CUtensorMap)",
    "void cutlass::Kernel2<cutlass_80_tensorop_s16816gemm_bf16>(Params)",
    "std::enable_if<!(false), void>::type internal::gemvx::kernel<int, int, float>(int)",
    "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NNT",
    "sm90_xmma_gemm_f32f32_tf32f32_f32_tn_n",
    "void flash::flash_fwd_kernel<Traits<192>, false>(Flash_fwd_params)",
    "flash_mla_decode_sm90_kernel",
    "fp8_gemm_nt_sm90_kernel",
    "void cub::DeviceScanKernel<int>(int)",
    "cudnn::bn_fw_tr_1C11_kernel_NCHW",
    "void (anonymous namespace)::softmax_warp_forward<float, 9>(float*)",
    "fused_rms_norm",
    "swiglu_backward_kernel",
    "aten::mm",
    "autograd::engine::evaluate_function: AddmmBackward0",
    "AddmmBackward0",
    "PP:0F7",
    "PP:(0F7;7B3)OVERLAP_F_B",
    *("optimizer", "experts", "attention", "expert gemm", "weight grad"),
]
COPIES = ["Memcpy HtoD (Pageable -> Device)", "Memcpy DtoD (Device -> Device)", "Memset (Device)"]
UNKNOWN = ["acme_sinkhorn", "broadcast_rows", "void reduce_rows<4>(int)", "dispatcher", "resend"]


@pytest.mark.parametrize(("name", "operation"), PAYLOAD.items())
def test_payload(name: str, operation: str) -> None:
    assert verdict(name, "kernel", "stream 7") == (Kind.PAYLOAD, operation, Role.WHOLE)


@pytest.mark.parametrize(("name", "operation"), LOW_LATENCY.items())
def test_low_latency_kernels_take_turns(name: str, operation: str) -> None:
    assert verdict(name, "kernel", "stream 7") == (Kind.PAYLOAD, operation, Role.ALTERNATE)


@pytest.mark.parametrize(("name", "operation"), WAITING.items())
def test_waiting(name: str, operation: str) -> None:
    assert verdict(name, "kernel", "stream 7") == (Kind.WAITING, operation, Role.WHOLE)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, Kind.COMPUTE) for name in COMPUTE),
        *((name, Kind.COPY) for name in COPIES),
        *((name, Kind.UNCLASSIFIED) for name in UNKNOWN),
    ],
)
def test_no_communication(name: str, kind: Kind) -> None:
    assert verdict(name, "kernel", "stream 7") == (kind, "", Role.WHOLE)


@pytest.mark.parametrize("category", ["gpu_memcpy", "gpu_memset", "Memcpy"])
def test_copies_are_known_by_category_too(category: str) -> None:
    assert verdict("CopyHostToDevice", category, "stream 7")[0] == Kind.COPY
    assert verdict("Memcpy PtoP (Device -> Device)", category, "stream 7")[0] == Kind.PAYLOAD


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("void a::b<c<d>, (e)0>(f<g>, h)", "void a::b"),
        ("a::(anonymous namespace)::b<1>(int)", "a::b"),
        ("plain", "plain"),
        ("cut<off<in, the(middle", "cut<off<in, the(middle"),
        ("", ""),
    ],
)
def test_function_name(name: str, bare: str) -> None:
    assert function_name(name) == bare


def test_classify_fills_columns() -> None:
    trace = trace_of(
        [("combine", 0, 1), ("PP:0F0", 1, 2), ("odd", 2, 3), ("dispatch", 3, 4), ("combine", 4, 5)]
    )
    labels = classify(trace)
    kinds = [Kind.PAYLOAD, Kind.COMPUTE, Kind.UNCLASSIFIED, Kind.PAYLOAD, Kind.PAYLOAD]
    assert labels.kinds.tolist() == kinds
    operations = [
        labels.operations[number] if number != NONE else "" for number in labels.operation
    ]
    assert operations == ["combine", "", "", "dispatch", "combine"]
    assert len(classify(trace_of([])).kinds) == 0


def test_user_rules_come_first_see_whole_names_and_may_ask_for_a_stream() -> None:
    rules = [
        Rule(re.compile("<special>"), Kind.COPY),
        Rule(re.compile("gemm"), Kind.PAYLOAD, "fused", stream=re.compile("27$")),
    ]
    trace = trace_of(
        [
            ("gemm<special>", 0, 1, "stream 27"),
            ("gemm", 1, 2, "stream 27"),
            ("gemm", 2, 3, "stream 7"),
        ]
    )
    labels = classify(trace, rules)
    assert labels.kinds.tolist() == [Kind.COPY, Kind.PAYLOAD, Kind.COMPUTE]
    assert labels.operations == ("fused",)


def test_rules_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    entries = [
        {"match": "put", "kind": "communication", "operation": "dispatch", "role": "send"},
        {"match": "take", "kind": "waiting", "operation": "dispatch", "role": "receive"},
        {"match": ".*", "kind": "waiting", "stream": "27"},
        {"match": "a2a", "kind": "communication"},
        {"match": "sinkhorn", "kind": "compute"},
        {"match": "blit", "kind": "copy"},
    ]
    path.write_text(json.dumps(entries))
    rules = read_rules(path)
    verdicts = [
        verdict(name, "kernel", stream, rules)
        for name, stream in (
            ("put", "s"),
            ("take", "s"),
            ("x", "s 27"),
            ("all2all_a2a", "s"),
            ("sinkhorn", "s"),
            ("blit", "s"),
        )
    ]
    assert verdicts == [
        (Kind.PAYLOAD, "dispatch", Role.SEND),
        (Kind.WAITING, "dispatch", Role.RECEIVE),
        (Kind.WAITING, "other", Role.WHOLE),
        (Kind.PAYLOAD, "other", Role.WHOLE),
        (Kind.COMPUTE, "", Role.WHOLE),
        (Kind.COPY, "", Role.WHOLE),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "must hold a list of rules, got an object"),
        ([[]], "rule 1 must be an object, got a list"),
        ([{"kind": "copy"}], 'rule 1 must have a "match"'),
        ([{"match": "a", "kind": "copy"}, {"match": "a"}], "rule 2: kind must be one of comm"),
        ([{"match": "a", "kind": "comm"}], "waiting, compute, copy, got 'comm'"),
        ([{"match": "a(", "kind": "copy"}], "match must be a regular expression, got 'a('"),
        (
            [{"match": "a", "kind": "copy", "stream": "["}],
            "stream must be a regular expression, got '['",
        ),
        ([{"match": "a", "kind": "copy", "regex": "b"}], "key must be one of match, kind, oper"),
        ([{"match": 3, "kind": "copy"}], "match must be text, got a number"),
        ([{"match": True, "kind": "copy"}], "match must be text, got a boolean"),
        (
            [{"match": "a", "kind": "communication", "role": "both"}],
            "role must be one of send, receive, got 'both'",
        ),
        (
            [{"match": "a", "kind": "copy", "operation": "b"}],
            "kind must be communication or waiting to have an operation, got copy",
        ),
    ],
)
def test_rules_that_cannot_be_used(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(content))
    with pytest.raises(RulesError, match=re.escape(message)) as caught:
        read_rules(path)
    assert str(path) in str(caught.value)


def test_rules_file_that_is_no_json_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    with pytest.raises(RulesError, match="must be readable, got No such file"):
        read_rules(path)
    path.write_bytes(b"[\xff")
    with pytest.raises(RulesError, match="must be JSON"):
        read_rules(path)
