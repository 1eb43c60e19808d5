// From an address in a lane to bytes of the host, or to the error that the access is.
#pragma once

#include <cstdint>
#include <string>

#include "warp.h"

namespace openweek::simulator {

enum class Window : std::uint8_t { kGeneric, kGlobal, kShared, kLocal, kParameter };

// What a lane does with the bytes, for their history. Atomic accesses are strong.
enum class Touch : std::uint8_t {
  kNone,  // somebody else enters it
  kRead,
  kWrite,
  kStrongRead,
  kStrongWrite,
  kModify,
  kTake,  // read by the asynchronous proxy; global memory alone
  kFill,  // written by it
};

// The bytes at an address, if this lane may touch all of them.
// Throws HazardError for an address outside of the window or not a multiple of `align`, and for an
// access that nothing orders after an earlier one with which it conflicts.
std::uint8_t* locate(Warp& warp, int lane, Window window, std::uint64_t address,
                     std::uint64_t num_bytes, int align, Touch touch,
                     MemoryScope scope = MemoryScope::kSys);

// Where an address of shared memory lies. Throws as locate does.
struct SharedPlace {
  Cta* cta = nullptr;
  std::uint32_t offset = 0;
};
SharedPlace shared_place(Warp& warp, int lane, std::uint64_t address, std::uint64_t num_bytes,
                         int align);

// Until a copy has come, its destination holds what nobody should use: NaN in most formats.
inline constexpr int kPoison = 0xff;

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
