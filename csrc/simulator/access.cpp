#include "access.h"

#include <cstdio>

#include "errors.h"
#include "world.h"

namespace openweek::simulator {
namespace {

std::string triple(const Dim3& dims) {
  return "(" + std::to_string(dims[0]) + ", " + std::to_string(dims[1]) + ", " +
         std::to_string(dims[2]) + ")";
}

std::string hex(std::uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

[[noreturn]] void out_of_bounds(Warp& warp, int lane, std::uint64_t address,
                                std::uint64_t num_bytes, const std::string& why) {
  throw HazardError("out of bounds: " + who(warp, lane) + " touches " + std::to_string(num_bytes) +
                    " bytes at " + hex(address) + ": " + why);
}

void check_aligned(Warp& warp, int lane, std::uint64_t address, int align) {
  if (address & (align - 1)) {
    throw HazardError("misaligned: " + who(warp, lane) + " touches " + hex(address) +
                      ", which must be a multiple of " + std::to_string(align));
  }
}

void remember(SharedHistory& history, std::uint32_t offset, int num_bytes, Touch touch,
              const Access& by) {
  switch (touch) {
    case Touch::kRead:
    case Touch::kStrongRead:
      return history.read(offset, num_bytes, by);
    case Touch::kWrite:
    case Touch::kStrongWrite:
      return history.write(offset, num_bytes, by);
    case Touch::kModify:
      return history.modify(offset, num_bytes, by);
    default:
      return;
  }
}

bool is_strong(Touch touch) {
  return touch == Touch::kStrongRead || touch == Touch::kStrongWrite || touch == Touch::kModify;
}

std::uint8_t* shared(Warp& warp, int lane, std::uint64_t address, std::uint64_t num_bytes,
                     Touch touch) {
  const SharedPlace place = shared_place(warp, lane, address, num_bytes, 1);
  if (touch != Touch::kNone) {
    const Access by{&warp, lane, warp.epoch(lane, is_strong(touch))};
    remember(place.cta->history, place.offset, static_cast<int>(num_bytes), touch, by);
    if (place.cta != &warp.cta()) place.cta->owe(by.epoch);
  }
  return place.cta->shared().data() + place.offset;
}

std::uint8_t* local(Warp& warp, int lane, std::uint64_t offset, std::uint64_t num_bytes) {
  const std::size_t size = warp.local_bytes();
  if (offset > size || offset + num_bytes > size) {
    out_of_bounds(warp, lane, offset, num_bytes,
                  "the thread has " + std::to_string(size) + " bytes of local memory");
  }
  return warp.local(lane) + offset;
}

std::uint8_t* parameter(Warp& warp, int lane, std::uint64_t offset, std::uint64_t num_bytes,
                        Touch touch) {
  Launch& launch = warp.cta().launch();
  const auto size = static_cast<std::uint64_t>(launch.argument_bytes);
  if (offset > size || offset + num_bytes > size) {
    out_of_bounds(warp, lane, offset, num_bytes,
                  "the kernel has " + std::to_string(size) + " bytes of parameters");
  }
  if (touch == Touch::kWrite || touch == Touch::kStrongWrite || touch == Touch::kModify) {
    out_of_bounds(warp, lane, offset, num_bytes, "parameters can only be read");
  }
  return reinterpret_cast<std::uint8_t*>(launch.arguments.data()) + offset;
}

std::uint8_t* global(Warp& warp, int lane, std::uint64_t address, std::uint64_t num_bytes,
                     Touch touch, MemoryScope scope) {
  const GlobalMemory& memory = warp.cta().launch().memory;
  if (!memory.allowed(address, num_bytes, warp.recent_range)) {
    out_of_bounds(warp, lane, address, num_bytes, memory.nearest(address, num_bytes));
  }
  if (touch == Touch::kNone) return reinterpret_cast<std::uint8_t*>(address);
  GlobalHistory& history = warp.cta().cluster().world().history();
  const Access by{&warp, lane, warp.epoch(lane, is_strong(touch)), scope};
  const bool asynchronous = touch == Touch::kTake || touch == Touch::kFill;
  if (touch == Touch::kRead || touch == Touch::kStrongRead || touch == Touch::kTake) {
    history.read(address, num_bytes, asynchronous, by);
  } else {
    history.write(address, num_bytes, asynchronous, by);
  }
  return reinterpret_cast<std::uint8_t*>(address);
}

}  // namespace

Origin origin(Warp& warp, int lane) { return {&warp, lane, warp.group().pc}; }

std::string Origin::text() const {
  const Dim3& block = warp->cta().launch().config.block;
  const int thread = warp->index() * kLanes + lane;
  const Dim3 tid = {thread % block[0], thread / block[0] % block[1], thread / block[0] / block[1]};
  return "thread " + triple(tid) + " of " + warp->cta().name() + " at " + warp->place(pc);
}

SharedPlace shared_place(Warp& warp, int lane, std::uint64_t address, std::uint64_t num_bytes,
                         int align) {
  address &= ~kSharedWindow;
  check_aligned(warp, lane, address, align);
  auto& ctas = warp.cta().cluster().ctas();
  const std::uint64_t rank = address >> kRankShift;
  const std::uint64_t offset = address & kOffsetMask;
  if (rank >= ctas.size()) {
    out_of_bounds(warp, lane, address, num_bytes,
                  "the cluster has no CTA of rank " + std::to_string(rank));
  }
  Cta& cta = *ctas[rank];
  if (offset + num_bytes > cta.shared().size()) {
    out_of_bounds(warp, lane, offset, num_bytes,
                  "the CTA has " + std::to_string(cta.shared().size()) + " bytes of shared memory");
  }
  if (cta.finished()) {
    throw HazardError("exited CTA: " + who(warp, lane) + " touches shared memory of " + cta.name() +
                      ", which has ended");
  }
  return {&cta, static_cast<std::uint32_t>(offset)};
}

std::uint8_t* locate(Warp& warp, int lane, Window window, std::uint64_t address,
                     std::uint64_t num_bytes, int align, Touch touch, MemoryScope scope) {
  check_aligned(warp, lane, address, align);
  switch (window) {
    case Window::kShared:
      return shared(warp, lane, address, num_bytes, touch);
    case Window::kLocal:
      return local(warp, lane, address, num_bytes);
    case Window::kParameter:
      return parameter(warp, lane, address, num_bytes, touch);
    case Window::kGlobal:
      return global(warp, lane, address, num_bytes, touch, scope);
    case Window::kGeneric:
      break;
  }
  // What lies in none of the windows, such as a null pointer minus something, is global.
  switch (address & kWindows) {
    case kParameterWindow:
      return parameter(warp, lane, address & ~kWindows, num_bytes, touch);
    case kLocalWindow:
      return local(warp, lane, address & ~kWindows, num_bytes);
    case kSharedWindow:
      return shared(warp, lane, address, num_bytes, touch);
    default:
      return global(warp, lane, address, num_bytes, touch, scope);
  }
}

}  // namespace openweek::simulator
