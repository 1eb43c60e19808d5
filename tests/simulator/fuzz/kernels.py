"""Random kernels that the parser takes: what they do may be right, wrong or wild."""

import re
from random import Random

_HEAD = """.version 8.7
.target sm_90a
.address_size 64
.global .align 16 .b8 table[64];
.global .align 1 .b8 format[24] =
{65, 37, 100, 37, 42, 120, 37, 46, 51, 102, 37, 115, 37, 108, 117};
.const .align 8 .u64 numbers[2] = {1, 2};
.extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);
.extern .func __assertfail (.param .b64 t, .param .b64 f, .param .b32 l, .param .b64 n,
.param .b64 s);
.func (.param .b32 out) turn (.param .b32 in) {
.reg .pred %p; .reg .b32 %r;
ld.param.b32 %r, [in]; setp.gt.s32 %p, %r, 64; @%p bra BIG; shl.b32 %r, %r, 1; bra END;
BIG: add.u32 %r, %r, 3; END: st.param.b32 [out], %r; ret; }
.func (.reg .b64 %o) grow (.reg .b64 %a, .reg .b32 %n) {
.reg .b64 %at, %size; .reg .b32 %r; cvt.u64.u32 %size, %n; and.b64 %size, %size, 2047;
alloca.u64 %at, %size, 16; call (%r), turn, (%n); st.local.b32 [%at], %r; ld.local.b64 %o, [%at];
add.u64 %o, %o, %a; }
.func (.reg .b64 %o) less (.reg .b64 %a, .reg .b32 %n) {
.reg .pred %p; setp.lt.u32 %p, %n, 16; sub.u64 %o, %a, 1; @%p ret; bar.sync 0; }
.visible .entry kernel(.param .u64 p0, .param .u64 p1, .param .align 64 .b8 map[128]) {
.reg .pred %p<8>;
.reg .b16 %h<8>;
.reg .b32 %r<24>;
.reg .f32 %f<160>;
.reg .f64 %d<8>;
.reg .b64 %rd<16>;
.reg .b128 %q<4>;
.shared .align 128 .b8 buffer[8192];
.local .align 16 .b8 own[64];
ld.param.u64 %rd0, [p0];
ld.param.u64 %rd1, [p1];
mov.b64 %rd2, map;
cvta.param.u64 %rd2, %rd2;
mov.u32 %r0, %tid.x;
mov.u32 %r1, buffer;
mov.u64 %rd3, buffer;
cvta.shared.u64 %rd3, %rd3;
mov.u64 %rd4, own;
cvta.local.u64 %rd4, %rd4;
mad.wide.u32 %rd5, %r0, 16, %rd0;
mad.lo.u32 %r2, %r0, 16, %r1;
mov.u64 %rd6, WILD;
mov.u32 %r3, WILD32;
setp.eq.u32 %p0, %r0, 0;
"""

# Fills shared memory, so that what reads it finds something.
_FILL = """setp.ge.u32 %p7, %r0, 32;
@%p7 bra FILLED;
{stores}
FILLED:
bar.sync 0;
fence.proxy.async;
"""
_STORE = "st.shared.v4.b32 [%r2+{offset}], {{%r0, %r0, %r0, %r0}};"

_BARRIERS = """@%p0 mbarrier.init.shared::cta.b64 [%r1], 1;
@%p0 mbarrier.init.shared::cta.b64 [%r1+8], 32;
fence.mbarrier_init.release.cluster;
bar.sync 0;
"""

# Of functions that are called by address.
_SHAPES = """SHAPE: .callprototype (.reg .b64 _) _ (.reg .b64 _, .reg .b32 _);
OTHER: .callprototype _ (.reg .b64 _, .reg .b64 _, .reg .b64 _);"""

# A brace is a slot: r a 32-bit register, l a 64-bit one, f d h q p others, i a number, s a shared
# address, g a global one, a a generic one, F a function, P a format, L a label, m a mask of lanes,
# t n and w parts of names.
_STATEMENTS = """
add.{t} {r}, {r}, {i};|sub.u64 {l}, {l}, {i};|mul.lo.s32 {r}, {r}, {r};|mul.wide.u32 {l}, {r}, {i};
mul.hi.u64 {l}, {l}, {l};|mad.lo.u32 {r}, {r}, {i}, {r};|div.s32 {r}, {r}, {r};|div.u64 {l}, {l}, {i};
rem.s64 {l}, {l}, {l};|rem.u32 {r}, {r}, {i};|abs.s32 {r}, {r};|neg.s64 {l}, {l};|min.s32 {r}, {r}, {i};
sad.u32 {r}, {r}, {r}, {r};|shl.b32 {r}, {r}, {i};|shr.s64 {l}, {l}, {r};|shr.u16 {h}, {h}, {r};
shf.l.wrap.b32 {r}, {r}, {r}, {i};|bfe.u32 {r}, {r}, {i}, {i};|bfe.s64 {l}, {l}, {r}, {r};
bfi.b32 {r}, {r}, {r}, {i}, {i};|prmt.b32 {r}, {r}, {r}, {i};|prmt.b32.rc16 {r}, {r}, {r}, {r};
lop3.b32 {r}, {r}, {r}, {r}, {i};|clz.b64 {r}, {l};|popc.b32 {r}, {r};|bfind.s32 {r}, {r};|brev.b64 {l}, {l};
cvt.s32.f32 {r}, {f};|cvt.rzi.s32.f32 {r}, {f};|cvt.rn.f16.f32 {h}, {f};|cvt.rn.bf16x2.f32 {r}, {f}, {f};
cvt.u8.u32 {r}, {r};|cvt.s64.s32 {l}, {r};|cvt.f64.f32 {d}, {f};|cvt.rn.f32.u64 {f}, {l};
cvt.rn.satfinite.e4m3x2.f32 {h}, {f}, {f};|cvt.rn.f16x2.e5m2x2 {r}, {h};|mov.b64 {l}, {{{r}, {r}}};
mov.b64 {{{r}, {r}}}, {l};|mov.b128 {q}, {{{l}, {l}}};|mov.b32 {{{h}, {h}}}, {r};|mov.b64 {{{h}, {h}, {h}, {h}}}, {l};
mov.u32 {r}, %laneid;|mov.u32 {r}, %ctaid.{w};|mov.u64 {l}, table;|add.f32 {f}, {f}, {f};|mul.f64 {d}, {d}, {d};
fma.rn.f32 {f}, {f}, {f}, {f};|fma.rn.bf16x2 {r}, {r}, {r}, {r};|add.rz.f32 {f}, {f}, {f};|sqrt.rn.f32 {f}, {f};
ex2.approx.ftz.f32 {f}, {f};|rcp.approx.f32 {f}, {f};|sin.approx.f32 {f}, {f};|div.full.f32 {f}, {f}, {f};
max.NaN.f16x2 {r}, {r}, {r};|tanh.approx.bf16x2 {r}, {r};|setp.{n}.s32 {p}, {r}, {i};|setp.{n}.f32 {p}|{p}, {f}, {f};
setp.lt.and.u64 {p}, {l}, {l}, !{p};|selp.b64 {l}, {l}, {l}, {p};|set.gt.u32.s32 {r}, {r}, {r};
ld.global.b32 {r}, {g};|ld.global.v4.f32 {{{f}, {f}, {f}, {f}}}, {g};|ld.global.nc.u8 {r}, {g};|st.global.b64 {g}, {l};
st.global.v2.b16 {g}, {{{h}, {h}}};|ld.relaxed.gpu.global.u32 {r}, {g};|st.release.sys.global.u64 {g}, {l};
ld.b64 {l}, {a};|st.b32 {a}, {r};|ld.acquire.gpu.b32 {r}, {a};|ld.shared.b32 {r}, {s};|st.shared.v4.b32 {s}, {{{r}, {r}, {r}, {r}}};
st.shared.b8 {s}, {r};|ld.shared::cluster.u32 {r}, {s};|ld.local.b32 {r}, [{l}];|st.local.u64 [own+{i}], {l};
ld.param.u32 {r}, [p0+{i}];|atom.global.add.u32 {r}, {g}, {r};|atom.shared.cas.b32 {r}, {s}, {r}, {r};
atom.add.f64 {d}, {a}, {d};|red.global.max.s64 {g}, {l};|atom.global.exch.b64 {l}, {g}, {l};|red.shared.inc.u32 {s}, {r};
atom.global.add.noftz.bf16x2 {r}, {g}, {r};|bra {L};|@{p} bra {L};|@!{p} bra {L};|brx.idx {r}, TABLE;
@{p} exit;|@{p} ret;|bar.sync {i};|bar.sync 1, 64;|bar.arrive 2, 64;|barrier.sync {r}, {i};|bar.red.popc.u32 {r}, 0, {p};
bar.warp.sync {m};|barrier.cluster.arrive.aligned;|barrier.cluster.wait.aligned;|barrier.cluster.arrive.release;
shfl.sync.idx.b32 {r}, {r}, {i}, 31, {m};|shfl.sync.down.b32 {r}|{p}, {r}, {r}, {r}, {m};|vote.sync.ballot.b32 {r}, {p}, {m};
match.any.sync.b64 {r}, {l}, {m};|redux.sync.min.s32 {r}, {r}, {m};|elect.sync {r}|{p}, {m};|activemask.b32 {r};
mbarrier.init.shared::cta.b64 {s}, {i};|mbarrier.arrive.shared::cta.b64 _, {s};|mbarrier.arrive.shared::cta.b64 {l}, {s}, {i};
mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], {i};|mbarrier.try_wait.parity.shared::cta.b64 {p}, [%r1], {i};
mbarrier.test_wait.shared::cta.b64 {p}, [%r1+8], {l};|mbarrier.inval.shared::cta.b64 {s};|mbarrier.complete_tx.shared::cta.b64 {s}, {i};
cp.async.ca.shared.global {s}, {g}, 4;|cp.async.cg.shared.global {s}, {g}, 16, {r};|cp.async.commit_group;|cp.async.wait_group {i};
cp.async.wait_all;|cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes {s}, {g}, {i}, [%r1];
@%p0 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes {s}, {s}, {r}, [%r1];
@%p0 cp.async.bulk.global.shared::cta.bulk_group {g}, {s}, {i};|cp.async.bulk.commit_group;|cp.async.bulk.wait_group.read {i};
@%p0 cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 {g}, {s}, {i};|cp.async.bulk.wait_group 0;
@%p0 cp.async.bulk.tensor.{k}.shared::cluster.global.tile.mbarrier::complete_tx::bytes {s}, [{M}, {C}], [%r1];
@%p0 cp.async.bulk.tensor.{k}.global.shared::cta.tile.bulk_group [{M}, {C}], {s};
@%p0 cp.reduce.async.bulk.tensor.{k}.global.shared::cta.add.tile.bulk_group [{M}, {C}], {s};
@%p0 cp.async.bulk.tensor.{k}.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster {s}, [{M}, {C}], [%r1], {h};
fence.proxy.async;|fence.acq_rel.gpu;|membar.cta;|fence.mbarrier_init.release.cluster;|nanosleep.u32 {i};
wgmma.fence.sync.aligned;|wgmma.commit_group.sync.aligned;|wgmma.wait_group.sync.aligned {i};
wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{{f}, {f}, {f}, {f}}}, {l}, {l}, {p}, 1, 1, {b}, {b};
wgmma.mma_async.sync.aligned.m64n8k32.f16.e4m3.e5m2 {{{r}, {r}}}, {l}, {l}, 1, 1, -1;
wgmma.mma_async.sync.aligned.m64n16k8.f32.tf32.tf32 {{{f}, {f}, {f}, {f}, {f}, {f}, {f}, {f}}}, {{{r}, {r}, {r}, {r}}}, {l}, 0, 1, 1;
ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{{r}, {r}, {r}, {r}}}, {s};|stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {s}, {{{r}, {r}}};
mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {{{f}, {f}, {f}, {f}}}, {{{r}, {r}, {r}, {r}}}, {{{r}, {r}}}, {{{f}, {f}, {f}, {f}}};
mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {{{r}, {r}}}, {{{r}, {r}}}, {{{r}}}, {{{r}, {r}}};
setmaxnreg.inc.sync.aligned.u32 {x};|setmaxnreg.dec.sync.aligned.u32 {x};|mapa.shared::cluster.u32 {r}, {r}, {i};
griddepcontrol.wait;|griddepcontrol.launch_dependents;|createpolicy.fractional.L2::evict_first.b64 {l}, 1.0;|trap;
{{ .param .b32 x; .param .b32 y; st.param.b32 [x], {r}; call (y), turn, (x); ld.param.b32 {r}, [y]; }}
call ({l}), grow, ({l}, {r});|call.uni ({l}), less, ({l}, {i});|call (_), turn, ({r});|mov.u64 {l}, {F};
call ({l}), {l}, ({l}, {r}), SHAPE;|{{ .reg .b64 f; mov.u64 f, {F}; call ({l}), f, ({l}, {r}), SHAPE; }}
call {l}, ({l}, {l}, {l}), OTHER;|call ({r}), vprintf, ({l}, {l});|call ({r}), vprintf, ({P}, {l});
{{ .reg .b64 f; mov.u64 f, format; call ({r}), vprintf, (f, {l}); }}
call __assertfail, ({l}, {l}, {r}, {l}, {l});
alloca.u64 {l}, {l};|alloca.u32 {r}, {r}, 64;|alloca.u64 {l}, 512, 16;|stacksave.u64 {l};|stackrestore.u64 {l};
add.cc.u32 {r}, {r}, {r};|addc.cc.u64 {l}, {l}, {l};|subc.u32 {r}, {r}, {i};|madc.hi.cc.u64 {l}, {l}, {l}, {l};
mad.lo.cc.s32 {r}, {r}, {r}, {r};|dp4a.s32.u32 {r}, {r}, {r}, {r};|dp2a.hi.u32.s32 {r}, {r}, {r}, {r};
vabsdiff4.u32.s32.u32.add {r}, {r}, {r}, {r};|bmsk.clamp.b32 {r}, {r}, {r};|szext.wrap.s32 {r}, {r}, {r};
fns.b32 {r}, {r}, {r}, {r};|mad24.hi.sat.s32 {r}, {r}, {r}, {r};|mul24.lo.u32 {r}, {r}, {r};|cnot.b64 {l}, {l};
sad.s64 {l}, {l}, {l}, {l};|add.sat.s32 {r}, {r}, {r};|mul.hi.s16 {h}, {h}, {h};|mul.lo.u16 {h}, {h}, {h};
max.s16x2.relu {r}, {r}, {r};|min.xorsign.abs.f32 {f}, {f}, {f};|copysign.f64 {d}, {d}, {d};|testp.subnormal.f32 {p}, {f};
slct.b64.f32 {l}, {l}, {l}, {f};|lop3.or.b32 {r}|{p}, {r}, {r}, {r}, {i}, {p};|isspacep.shared {p}, {l};|isspacep.const {p}, {l};
getctarank.u64 {r}, {l};|cvt.pack.sat.u8.s32.b32 {r}, {r}, {r}, {r};|mov.u64 {l}, %clock64;|mov.u32 {r}, %globaltimer_hi;
mov.u32 {r}, %nsmid;|mov.u64 {l}, %gridid;|mov.u64 {l}, numbers;|ld.const.u64 {l}, [numbers+{i}];|prefetchu.L1 {a};
discard.global.L2 {g}, 128;|applypriority.global.L2::evict_normal {g}, 128;|ldu.global.b32 {r}, {g};|brkpt;|pmevent 1;
rcp.rn.f64 {d}, {d};|sqrt.rm.f64 {d}, {d};|div.rp.f32 {f}, {f}, {f};|fma.rz.sat.f32 {f}, {f}, {f}, {f};
cvta.to.global.u64 {l}, {l};|cvta.shared.u64 {l}, {l};|prefetch.global.L2 {g};|mov.pred {p}, {p};|xor.pred {p}, {p}, !{p};
"""  # noqa: E501 (a table)

# A bar may also join two predicates, so statements end where one follows a semicolon.
STATEMENTS = [
    statement
    for line in _STATEMENTS.strip().splitlines()
    for statement in re.split(r"(?<=;)\|", line)
]

_NUMBERS = (0, 1, 2, 3, 4, 8, 15, 16, 31, 32, 64, 128, 256, 1024, 4096, 8192, 65535, 65536)
_EDGES = (
    -1,
    -8,
    2**31 - 1,
    2**31,
    2**32 - 16,
    2**32 - 1,
    2**32,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_TYPES = ("u32", "s32", "u32", "s32", "s64", "u16")
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "nan")


def random_kernel(random: Random) -> str:
    """The text of a module with one kernel, which has parameters p0, p1 and 128 bytes."""
    num_labels = random.randrange(1, 5)
    body = [_statement(random, num_labels) for _ in range(random.randrange(1, 40))]
    for label in range(num_labels):
        body.insert(random.randrange(len(body) + 1), f"L{label}:")
    lines = [
        _HEAD.replace("WILD32", str(_wild(random, 32))).replace("WILD", str(_wild(random, 64)))
    ]
    if random.random() < 0.7:
        stores = "\n".join(_STORE.format(offset=512 * i) for i in range(16))
        lines.append(_FILL.format(stores=stores))
    if random.random() < 0.6:
        lines.append(_BARRIERS)
    lines.append(_descriptors(random))
    lines += body
    targets = ", ".join(f"L{random.randrange(num_labels)}" for _ in range(random.randrange(1, 5)))
    lines.append(f"TABLE: .branchtargets {targets};\n{_SHAPES}")
    lines.append(random.choice(["ret;", "", "@%p1 ret;", "bra L0;", "exit;"]))
    return "\n".join(lines) + "\n}\n"


def _wild(random: Random, bits: int) -> int:
    return random.choice([random.getrandbits(bits), 0, 2**bits - 1, 2 ** (bits - 1), 16])


def _descriptors(random: Random) -> str:
    """Matrix descriptors in %rd7 and %rd8, of the buffer or of anything."""
    lines = []
    for register in ("%rd7", "%rd8"):
        if random.random() < 0.3:
            value = random.getrandbits(64)
        else:
            offset, strides = random.randrange(0, 8192, 16), random.choice([8, 64, 128, 0x3FFF])
            value = offset >> 4 | strides << 16 | strides << 32 | random.randrange(4) << 62
        lines.append(f"mov.u64 {register}, {value};")
    return "\n".join(lines)


def _statement(random: Random, num_labels: int) -> str:
    template = random.choice(STATEMENTS)
    text = re.sub(
        r"\{(\w)\}", lambda slot: _slot(random, slot[1], num_labels), template
    )  # what is left of double braces are braces
    text = _with_coordinates(random, text).replace("{{", "{").replace("}}", "}")
    if not text.startswith(("@", "{")) and random.random() < 0.15:
        text = f"@{random.choice(['', '!'])}%p{random.randrange(8)} {text}"
    return text


def _with_coordinates(random: Random, text: str) -> str:
    """Gives a tensor copy its rank, and as many coordinates."""
    if "RANK" not in text:
        return text
    rank = random.choice([1, 2, 2, 2, 3, 5])
    coordinates = ", ".join(
        random.choice(["%r3", "%r4", str(random.choice(_NUMBERS))]) for _ in range(rank)
    )
    return text.replace("RANK", f"{rank}d").replace("COORDINATES", f"{{{coordinates}}}")


def _slot(random: Random, slot: str, num_labels: int) -> str:
    number = random.choice(_NUMBERS) if random.random() < 0.85 else random.choice(_EDGES)
    offset = random.randrange(0, 512, 16) if random.random() < 0.8 else number
    choices = {
        "r": f"%r{random.randrange(3, 24)}",
        "l": f"%rd{random.randrange(6, 16)}",
        "f": f"%f{random.randrange(160)}",
        "d": f"%d{random.randrange(8)}",
        "h": f"%h{random.randrange(8)}",
        "q": f"%q{random.randrange(4)}",
        "p": f"%p{random.randrange(8)}",
        "i": str(number),
        "b": str(random.randrange(2)),
        "x": str(random.choice([24, 40, 128, 232, 240, 256])),
        "t": random.choice(_TYPES[:4]),
        "n": random.choice(_COMPARISONS[:6]),
        "w": random.choice("xyz"),
        "m": random.choice(["-1", "-1", "0", "1", "0xffff", "%r3", "%r0"]),
        "L": f"L{random.randrange(num_labels)}",
        "k": "RANK",
        "C": "COORDINATES",
        "M": random.choice(["%rd2"] * 6 + ["%rd0", "%rd6", "map"]),
        "F": random.choice(["grow", "less", "turn", "vprintf", "kernel"]),
        "P": random.choice(["%rd0", "%rd4", "%rd6", "%rd12", "0"]),
        "s": f"[{random.choice(['%r1', '%r1', '%r2', '%r2', '%r3', '%rd3'])}+{offset}]",
        "g": f"[{random.choice(['%rd0', '%rd1', '%rd5', '%rd5', '%rd6', '%rd3'])}+{offset}]",
        "a": f"[{random.choice(['%rd0', '%rd2', '%rd3', '%rd4', '%rd5', '%rd6'])}+{offset}]",
    }
    return choices[slot]
