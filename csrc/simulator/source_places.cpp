// Where an instruction stands: its line of the PTX, and the lines of the source that it comes from.
#include <set>
#include <utility>

#include "lowering.h"

namespace openweek::simulator {
std::string Program::place(std::int32_t pc) const {
  const SourceLine& source = sources[code[pc].source];
  std::string text = "line " + std::to_string(source.ptx_line) + " of the PTX";
  if (!source.place.empty()) text += ", " + source.place;
  return source.text + " at " + text;
}

// Where code of a location comes from, and the places through which its function was inlined,
// innermost first: "tma.cuh:65, called at gemm.cuh:120". Where the caller was inlined too, the .loc
// of the call tells; compilers write it before or behind the code, and not for each copy of it, so
// the nearest one counts.
std::string Lowering::place(int location) const {
  const auto& all = module_.locations;
  const int last = static_cast<int>(all.size());
  const auto is_call = [&](int at, const ptx::Location& inner) {
    return at >= 0 && at < last && all[at].file == inner.caller_file &&
           all[at].line == inner.caller_line;
  };
  std::string text;
  const auto add = [&](int file, int line) {
    const auto name = module_.files.find(file);
    // Line 0 is code of which no line is the reason.
    if (name == module_.files.end() || line == 0) return false;
    text += (text.empty() ? "" : ", called at ") + name->second + ":" + std::to_string(line);
    return true;
  };
  if (location < 0 || !add(all[location].file, all[location].line)) return text;
  std::set<std::pair<int, int>> seen;  // the nearest may lead back
  while (all[location].caller_file != 0) {
    const ptx::Location& inner = all[location];
    if (!seen.insert({inner.caller_file, inner.caller_line}).second) break;
    if (!add(inner.caller_file, inner.caller_line)) break;
    int away = 1;
    while (away < last && !is_call(location - away, inner) && !is_call(location + away, inner)) {
      ++away;
    }
    if (away == last) break;
    location += is_call(location - away, inner) ? -away : away;
  }
  return text;
}

}  // namespace openweek::simulator
