// What a simulated run can end with.
#pragma once

#include <stdexcept>
#include <string>

namespace openweek::simulator {

// The kernel did what no kernel may do: the first word of the message names the finding.
class HazardError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Nothing can go on any more.
class DeadlockError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The module or the launch asks for what the simulator does not know or the machine does not have.
class UnsupportedError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace openweek::simulator
