// From an address in a lane to bytes of the host, or to the error that the access is.
#pragma once

#include <cstdint>
#include <string>

#include "warp.h"

namespace openweek::simulator {

enum class Window : std::uint8_t { kGeneric, kGlobal, kShared, kLocal, kParameter };

// The bytes at an address, if this lane may touch all of them.
// Throws HazardError for an address outside of the window or not a multiple of `align`.
std::uint8_t* locate(Warp& warp, int lane, Window window, std::uint64_t address, int num_bytes,
                     int align);

// Which thread does what: made for every access, turned into words for an error alone.
struct Origin {
  Warp* warp = nullptr;
  int lane = 0;
  std::int32_t pc = 0;

  // "thread (3, 0, 0) of CTA (1, 0, 0) at st.global.b32, line 12 of the PTX"
  std::string text() const;
};
Origin origin(Warp& warp, int lane);

inline std::string who(Warp& warp, int lane) { return origin(warp, lane).text(); }

}  // namespace openweek::simulator
