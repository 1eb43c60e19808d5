// Sizes of variables, and where those of a module lie.
#include <algorithm>
#include <cstring>

#include "errors.h"
#include "lowering.h"
#include "memory.h"

namespace openweek::simulator {
namespace {

// What no kernel that a compiler makes comes near, so that a text cannot take all memory.
constexpr std::int64_t kMaxModuleBytes = std::int64_t{1} << 32;

}  // namespace

std::int64_t align_up(std::int64_t value, std::int64_t align) {
  return align <= 1 ? value : (value + align - 1) / align * align;
}

Type type_of(const std::string& name) {
  const auto type = type_named(name);
  if (!type) throw UnsupportedError("type ." + name + " is not there");
  return *type;
}

std::int64_t bytes_of(const ptx::Variable& variable) {
  return variable.num_elements * bytes_of(type_of(variable.type));
}

int align_of(const ptx::Variable& variable) {
  return std::max(variable.align, bytes_of(type_of(variable.type)));
}

ModuleMemory::ModuleMemory(const ptx::Module& module) {
  for (const ptx::Function& function : module.functions) {
    functions_.try_emplace(function.name, kFunctionWindow + functions_.size());
  }
  std::int64_t total = 0;
  int most_aligned = 16;
  const auto each_variable = [&module](auto&& each) {
    for (const ptx::Variable& variable : module.variables) {
      if (variable.space != ptx::Space::kShared) each(variable);
    }
  };
  // At least a byte each, so that addresses differ.
  const auto place_behind = [](std::int64_t at, const ptx::Variable& variable) {
    return align_up(at, std::max(16, align_of(variable)));
  };
  each_variable([&](const ptx::Variable& variable) {
    total = place_behind(total, variable) + std::max<std::int64_t>(1, bytes_of(variable));
    most_aligned = std::max(most_aligned, align_of(variable));
    if (total > kMaxModuleBytes) {
      throw UnsupportedError("the module has more than " + std::to_string(kMaxModuleBytes) +
                             " bytes of .global and .const variables, with " + variable.name);
    }
  });
  all_.reset(static_cast<std::uint8_t*>(
      std::calloc(1, static_cast<std::size_t>(align_up(total, 16) + most_aligned))));
  if (all_ == nullptr) {
    throw UnsupportedError("the module has " + std::to_string(total) +
                           " bytes of .global and .const variables, for which there is no memory");
  }
  auto* const first = reinterpret_cast<std::uint8_t*>(
      align_up(reinterpret_cast<std::int64_t>(all_.get()), most_aligned));
  std::int64_t at = 0;
  each_variable([&](const ptx::Variable& variable) {
    at = place_behind(at, variable);
    const Block block{variable.name, variable.space, first + at, bytes_of(variable)};
    std::copy(variable.initial.begin(), variable.initial.end(), block.bytes);
    at += std::max<std::int64_t>(1, block.num_bytes);
    by_name_.emplace(block.name, blocks_.size());
    blocks_.push_back(block);
  });
  each_variable([&](const ptx::Variable& variable) {
    for (const auto& [offset, symbol] : variable.relocations) {
      const std::uint64_t value = address(symbol.first) + static_cast<std::uint64_t>(symbol.second);
      std::memcpy(blocks_[by_name_.at(variable.name)].bytes + offset, &value, 8);
    }
  });
}

std::uint64_t ModuleMemory::address(const std::string& name) const {
  const auto found = by_name_.find(name);
  if (found != by_name_.end()) return reinterpret_cast<std::uint64_t>(blocks_[found->second].bytes);
  const auto function = functions_.find(name);
  return function == functions_.end() ? 0 : function->second;
}

}  // namespace openweek::simulator
