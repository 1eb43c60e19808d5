"""Layouts of scale tensors: column after column for TMA, and four powers of two in an int32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from csrc import Checker
from deepgemm.layout import ceil_div, get_mk_alignment_for_contiguous_layout
from deepgemm.layout import get_tma_aligned_size as aligned_size

_MANTISSA_BITS = 23


def ceil_to_ue8m0(x: torch.Tensor) -> torch.Tensor:
    """Round sizes up to powers of two, which is what UE8M0, an exponent alone, can say.

    Args:
        x: float32, any shape; its sign is dropped. Zero, infinity and NaN are kept.

    Example:
        >>> ceil_to_ue8m0(torch.tensor([1.0, 1.5, -3.0])).tolist()
        [1.0, 2.0, 4.0]
    """
    # Exact, which ceil(log2(x)) is not: a logarithm rounded up makes 2 out of 1.
    size = x.abs()
    mantissa, exponent = torch.frexp(size)
    power = torch.ldexp(torch.ones_like(size), exponent - (mantissa == 0.5).to(exponent.dtype))
    # frexp makes any number out of infinity and NaN.
    return power.where(size.isfinite() & (size > 0), size)


def pack_ue8m0_to_int(x: torch.Tensor) -> torch.Tensor:
    """Pack the exponents of four powers of two into an int32, the first in its lowest byte.

    Args:
        x: [.., columns] float32 contiguous, powers of two or 0; columns a multiple of 4.

    Returns:
        [.., columns / 4] int32.

    Raises:
        TypeError, ValueError: another dtype or size, or (CPU tensors only) another number.

    Example:
        >>> hex(pack_ue8m0_to_int(torch.tensor([1.0, 2.0, 0.5, 0.25])).item())
        '0x7d7e807f'
    """
    check = Checker("pack_ue8m0_to_int")
    names = [f"d{dim}" for dim in range(x.dim() - 1)]
    check.tensor("x", x, (*names, "columns"), torch.float32)
    check.multiple("columns", check.dims["columns"], 4, "pad with zeros")
    return _packed(check, "x", x)


def get_mn_major_tma_aligned_tensor(sf: torch.Tensor) -> torch.Tensor:
    """Lay scales out column by column, each column padded to a multiple of 16 bytes.

    Args:
        sf: [mn, k] or [num_groups, mn, k] float32, any strides.

    Returns:
        The same numbers and shape with strides (.., 1, mn rounded up to a multiple of 4): `sf`
        itself where it has them.

    Raises:
        TypeError, ValueError: another dtype or number of dims.

    Example:
        >>> get_mn_major_tma_aligned_tensor(torch.ones(5, 3)).stride()
        (1, 8)
    """
    check = Checker("get_mn_major_tma_aligned_tensor")
    _check_scales(check, sf)
    return _by_columns(sf)


# The first release's name.
get_col_major_tma_aligned_tensor = get_mn_major_tma_aligned_tensor


def get_mn_major_tma_aligned_packed_ue8m0_tensor(
    sf: torch.Tensor, psum_layout: torch.Tensor | None = None
) -> torch.Tensor:
    """Pack scales that are powers of two, four columns to an int32, and lay that out by columns.

    Args:
        sf: [mn, k] or [num_groups, mn, k] float32 powers of two, any strides.
        psum_layout: [num_groups] int32, the row behind each group as for
            `m_grouped_fp8_gemm_nt_contiguous`; rows between groups become 0, whatever they hold.

    Returns:
        Like sf with ceil(k / 4) columns, int32; strides (.., 1, mn rounded up to a multiple of 4).
        Columns that k does not fill are 0.

    Raises:
        TypeError, ValueError: another dtype or number of dims, or (CPU tensors only) a number that
            is no power of two.
    """
    check = Checker("get_mn_major_tma_aligned_packed_ue8m0_tensor")
    _check_scales(check, sf)
    if psum_layout is not None:
        if sf.dim() != 2:
            check.invalid("sf", "have two dims with psum_layout", list(sf.shape), "take one group")
        check.tensor("psum_layout", psum_layout, ("num_groups",), torch.int32)
        sf = sf.where(_is_of_group(psum_layout, len(sf))[:, None], 0)
    padded = functional.pad(sf, (0, -sf.shape[-1] % 4)).contiguous()
    return _by_columns(_packed(check, "sf", padded))


def get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor(
    sf: torch.Tensor,
    grouped_layout: torch.Tensor | None,
    ks_cpu: Sequence[int],
    gran_k: int,
    k_alignment: int | None = None,
    use_psum_layout: bool = False,
) -> torch.Tensor:
    """Pack the scales of groups of columns, each group into int32s of its own.

    Args:
        sf: [sum of ceil(ks[g] / gran_k), mn] float32 powers of two, group after group.
        grouped_layout: [num_groups] int32, ks_cpu on the device; not read.
        ks_cpu: columns of each group.
        gran_k: columns that share a scale.
        k_alignment: accepted; groups are where ks_cpu says.
        use_psum_layout: must be False.

    Returns:
        [sum of ceil(ks[g] / (4 · gran_k)), mn] int32 contiguous; the scales that a group does not
        have are 0.

    Raises:
        TypeError, ValueError, NotImplementedError: as for the ungrouped one; `use_psum_layout`.
    """
    del grouped_layout, k_alignment
    check = Checker("get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor")
    if use_psum_layout:
        remedy = "end offsets of columns are not built"
        check.not_built("use_psum_layout", "be False", True, remedy)
    if gran_k < 1:
        check.invalid("gran_k", "be at least 1", gran_k, "use 128")
    lengths = [ceil_div(k, gran_k) for k in ks_cpu]
    check.tensor("sf", sf, (sum(lengths), "mn"), torch.float32, layout="any")
    groups = torch.split(sf, lengths)
    padded = [functional.pad(group.T, (0, -len(group) % 4)) for group in groups]
    if not padded:
        return sf.new_empty((0, sf.shape[1]), dtype=torch.int32)
    return _packed(check, "sf", torch.cat(padded, dim=1).contiguous()).T.contiguous()


def transform_sf_into_required_layout(
    sf: torch.Tensor,
    mn: int,
    k: int,
    recipe: Sequence[int],
    num_groups: int | None = None,
    is_sfa: bool | None = None,
    disable_ue8m0_cast: bool = False,
    psum_layout: torch.Tensor | None = None,
) -> torch.Tensor:
    """Bring float32 scales into the layout that is fastest on Hopper.

    Args:
        sf: [mn blocks, k blocks] or [num_groups, mn blocks, k blocks] float32.
        mn: rows of the data.
        k: columns of the data.
        recipe: (rows, columns) of a block, or (of m, of n, of k).
        num_groups: of a grouped operand, else None.
        is_sfa: of a recipe of three, whether sf is a's.
        disable_ue8m0_cast: accepted; Hopper takes scales as they are.
        psum_layout: accepted; gaps between groups are never read.

    Returns:
        Scales of single rows laid out by columns, see `get_mn_major_tma_aligned_tensor`; scales of
        128 × 128 blocks as they are.

    Raises:
        TypeError, ValueError: another dtype or shape.
        NotImplementedError: another recipe.
    """
    del disable_ue8m0_cast, psum_layout
    check = Checker("transform_sf_into_required_layout")
    if len(recipe) == 3 and is_sfa is None:
        check.invalid("is_sfa", "be given with a recipe of three", None, "say whose scales sf is")
    rows, columns = recipe if len(recipe) == 2 else (recipe[0 if is_sfa else 1], recipe[2])
    if (rows, columns) not in ((1, 128), (128, 128)):
        rule = "have blocks of (1, 128) or (128, 128)"
        check.not_built("recipe", rule, tuple(recipe), "no other scale blocks are built")
    groups = () if num_groups is None else (num_groups,)
    shape = (*groups, ceil_div(mn, rows), ceil_div(k, columns))
    check.tensor("sf", sf, shape, torch.float32, layout="any")
    return _by_columns(sf) if rows == 1 else sf


def _check_scales(check: Checker, sf: torch.Tensor) -> None:
    grouped = isinstance(sf, torch.Tensor) and sf.dim() == 3
    shape = ("num_groups", "mn", "k") if grouped else ("mn", "k")
    check.tensor("sf", sf, shape, torch.float32, layout="any")


def _by_columns(sf: torch.Tensor) -> torch.Tensor:
    *groups, mn, k = sf.shape
    height = aligned_size(mn, sf.element_size())
    strides = (*([height * k] if groups else []), 1, height)
    if sf.stride() == strides:
        return sf
    return torch.empty_strided(sf.shape, strides, dtype=sf.dtype, device=sf.device).copy_(sf)


def _packed(check: Checker, name: str, x: torch.Tensor) -> torch.Tensor:
    if x.numel() == 0:
        return x.new_empty((*x.shape[:-1], x.shape[-1] // 4), dtype=torch.int32)
    bits = x.view(torch.int32)
    if x.device.type == "cpu" and (wrong := (bits & ~(0xFF << _MANTISSA_BITS)) != 0).any():
        first = x[wrong][0].item()
        check.invalid(name, "hold powers of two or 0", first, "round with ceil_to_ue8m0")
    return (bits >> _MANTISSA_BITS).to(torch.uint8).view(torch.int32)


def _is_of_group(ends: torch.Tensor, rows: int) -> torch.Tensor:
    tile = get_mk_alignment_for_contiguous_layout()
    begins = functional.pad((ends + tile - 1) // tile * tile, (1, 0))[:-1]
    row = torch.arange(rows, device=ends.device)[:, None]
    return ((row >= begins) & (row < ends)).any(1)
