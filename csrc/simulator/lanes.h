// One operation on 32 lanes: the loop that all arithmetic shares.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "warp.h"

namespace openweek::simulator {

// A value of type T lies in the low bytes of a cell.
template <class T>
using Cell = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

template <class T>
T value_of(Cell<T> cell) {
  T value;
  std::memcpy(&value, &cell, sizeof value);  // hosts are little-endian
  return value;
}

template <class T>
Cell<T> cell_of(T value) {
  Cell<T> cell = 0;
  std::memcpy(&cell, &value, sizeof value);
  return cell;
}

// Calls `each(lane)` for the lanes of a mask; for all of them in a loop that the compiler can turn
// into vector instructions.
template <class Each>
void for_lanes(Mask lanes, Each each) {
  if (lanes == kAllLanes) {
    for (int lane = 0; lane < kLanes; ++lane) each(lane);
  } else {
    for (int lane = 0; lane < kLanes; ++lane) {
      if (lanes >> lane & 1) each(lane);
    }
  }
}

// dst = Op::run(a), Op::run(a, b), Op::run(a, b, c): D and the others are the types of values.
template <class Op, class D, class A>
Step unary(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Cell<D>>(inst.dst);
  const auto* a = warp.row<Cell<A>>(inst.a);
  for_lanes(lanes, [&](int i) { dst[i] = cell_of<D>(Op::run(value_of<A>(a[i]))); });
  return Step::kNext;
}

template <class Op, class D, class A, class B = A>
Step binary(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Cell<D>>(inst.dst);
  const auto* a = warp.row<Cell<A>>(inst.a);
  const auto* b = warp.row<Cell<B>>(inst.b);
  for_lanes(lanes,
            [&](int i) { dst[i] = cell_of<D>(Op::run(value_of<A>(a[i]), value_of<B>(b[i]))); });
  return Step::kNext;
}

template <class Op, class D, class A, class B = A, class C = A>
Step ternary(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Cell<D>>(inst.dst);
  const auto* a = warp.row<Cell<A>>(inst.a);
  const auto* b = warp.row<Cell<B>>(inst.b);
  const auto* c = warp.row<Cell<C>>(inst.c);
  for_lanes(lanes, [&](int i) {
    dst[i] = cell_of<D>(Op::run(value_of<A>(a[i]), value_of<B>(b[i]), value_of<C>(c[i])));
  });
  return Step::kNext;
}

}  // namespace openweek::simulator
