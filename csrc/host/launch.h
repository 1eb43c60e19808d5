// A kernel on one device, with all that stays the same from launch to launch.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "driver_api.h"

namespace openweek::host {

using Extent = std::array<unsigned, 3>;

struct LaunchShape {
  Extent block;
  Extent cluster;
  unsigned dynamic_shared_bytes;
  bool programmatic;  // may start before its predecessor on the stream has ended
};

class PreparedLaunch {
 public:
  // Loads the cubin on the device. `parameter_offsets` tells where in the bytes given to `run` each
  // of the kernel's parameters starts; the driver knows their sizes.
  PreparedLaunch(const std::string& cubin, const std::string& name, int device,
                 const LaunchShape& shape, std::vector<size_t> parameter_offsets,
                 size_t parameter_bytes);
  ~PreparedLaunch();
  PreparedLaunch(const PreparedLaunch&) = delete;
  PreparedLaunch& operator=(const PreparedLaunch&) = delete;

  // Enqueues one launch; the driver has copied the parameters when this returns.
  void run(std::string_view parameters, const Extent& grid, Stream stream) const;

 private:
  Context context_;
  Module module_ = nullptr;
  Function function_ = nullptr;
  LaunchShape shape_;
  std::vector<size_t> parameter_offsets_;
  size_t parameter_bytes_;
};

}  // namespace openweek::host
