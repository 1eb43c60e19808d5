#include "machine.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "errors.h"

namespace openweek::simulator {
namespace {

// Thrown through a run whose result nobody wants any more.
struct Stopped {};

// The clusters of a launch in worlds of their own, on several host threads. What each does depends
// on the seed and its number alone, and the error of the lowest number is the run's.
class Apart {
 public:
  Apart(Launch& launch, const MachineConfig& config) : launch_(launch), config_(config) {}

  RunReport run(int num_threads, const std::function<void()>& poll,
                const std::function<void(const std::string&)>& print) {
    const std::int64_t num_workers = std::min<std::int64_t>(num_threads, launch_.num_clusters());
    std::vector<std::thread> workers;
    num_working_ = static_cast<int>(num_workers);
    workers.reserve(static_cast<std::size_t>(num_workers));
    try {
      while (workers.size() < static_cast<std::size_t>(num_workers)) {
        workers.emplace_back([this] { work(); });
      }
    } catch (const std::system_error&) {  // the machine has no more threads: fewer do as well
      if (workers.empty()) throw;
      const std::lock_guard lock(mutex_);
      num_working_ -= static_cast<int>(num_workers) - static_cast<int>(workers.size());
    }
    std::exception_ptr interrupted;
    {
      std::unique_lock lock(mutex_);
      while (num_working_ > 0) {
        idle_.wait_for(lock, std::chrono::milliseconds(50));
        if (interrupted) continue;
        lock.unlock();
        try {
          poll();
        } catch (...) {
          interrupted = std::current_exception();
          failed_ = -1;
        }
        lock.lock();
      }
    }
    for (std::thread& worker : workers) worker.join();
    // As one cluster after the other would have: what comes behind one that failed did not happen.
    for (const auto& [number, text] : printed_) {
      if (interrupted || number <= failed_) print(text);
    }
    if (interrupted) std::rethrow_exception(interrupted);
    if (error_) std::rethrow_exception(error_);
    return report_;
  }

 private:
  void work() {
    for (;;) {
      const std::int64_t number = next_++;
      if (number >= launch_.num_clusters() || number > failed_) break;
      try {
        MachineConfig config = config_;
        config.seed = seed_of(number);
        World world({Share(launch_, number, number + 1)}, config);
        const Printed printed(*this, number, world);
        const RunReport report = world.run([this, number] {
          if (number > failed_) throw Stopped();
        });
        const std::lock_guard lock(mutex_);
        done_.emplace(number, Done{report, std::move(world.history()), world.printed().size()});
        merge();
      } catch (const Stopped&) {
      } catch (...) {
        const std::lock_guard lock(mutex_);
        fail(number, std::current_exception());
      }
    }
    const std::lock_guard lock(mutex_);
    --num_working_;
    idle_.notify_one();
  }

  // Keeps what a world has printed, however it ends.
  class Printed {
   public:
    Printed(Apart& run, std::int64_t number, World& world)
        : run_(run), number_(number), world_(world) {}
    ~Printed() {
      if (world_.printed().empty()) return;
      const std::lock_guard lock(run_.mutex_);
      run_.printed_[number_] = std::move(world_.printed());
    }
    Printed(const Printed&) = delete;
    Printed& operator=(const Printed&) = delete;

   private:
    Apart& run_;
    std::int64_t number_;
    World& world_;
  };

  // Neighbouring numbers must not give similar runs.
  std::uint64_t seed_of(std::int64_t number) const {
    std::seed_seq sequence{config_.seed & 0xffffffffu, config_.seed >> 32,
                           static_cast<std::uint64_t>(number)};
    std::uint32_t words[2];
    sequence.generate(words, words + 2);
    return std::uint64_t{words[0]} << 32 | words[1];
  }

  void merge() {
    for (auto next = done_.begin(); next != done_.end() && next->first == num_merged_;
         next = done_.erase(next), ++num_merged_) {
      report_.add(next->second.report);
      const auto wrong = merged_.add(next->second.history, next->first, [this](std::int32_t place) {
        return launch_.program->place(place);
      });
      if (wrong) fail(next->first, std::make_exception_ptr(HazardError(*wrong)));
      if (report_.num_instructions > config_.max_instructions) {
        fail(next->first, std::make_exception_ptr(DeadlockError(too_long(config_))));
      }
      printed_bytes_ += next->second.printed_bytes;
      if (printed_bytes_ > kMaxPrintedBytes) {
        fail(next->first, std::make_exception_ptr(UnsupportedError(too_much_printed())));
      }
    }
  }

  void fail(std::int64_t number, std::exception_ptr error) {
    if (number > failed_) return;
    failed_ = number;
    error_ = std::move(error);
  }

  Launch& launch_;
  const MachineConfig& config_;
  std::atomic<std::int64_t> next_ = 0;
  std::atomic<std::int64_t> failed_ = INT64_MAX;  // the lowest number that has
  std::mutex mutex_;                              // of all below
  std::condition_variable idle_;
  int num_working_ = 0;
  struct Done {
    RunReport report;
    GlobalHistory history;
    std::size_t printed_bytes = 0;
  };
  std::map<std::int64_t, Done> done_;
  std::int64_t num_merged_ = 0;
  MergedHistory merged_;
  RunReport report_;
  std::map<std::int64_t, std::string> printed_;
  std::size_t printed_bytes_ = 0;  // by the clusters that are merged
  std::exception_ptr error_;
};

}  // namespace

std::uint64_t Machine::multicast(std::uint64_t num_bytes, std::vector<std::uint64_t> replicas) {
  constexpr std::uint64_t kApart = 1 << 21;  // with a gap behind, so that an overrun is noticed
  std::uint64_t begin = kMulticastWindow;
  if (!config_.multicasts.empty()) {
    const Multicast& last = config_.multicasts.back();
    begin = (last.begin + last.num_bytes) / kApart * kApart + 2 * kApart;
  }
  config_.multicasts.push_back({begin, num_bytes, std::move(replicas)});
  return begin;
}

RunReport Machine::run(int num_threads, const std::function<void()>& poll,
                       const std::function<void(const std::string&)>& print) {
  std::deque<Launch> launches = std::exchange(launches_, {});
  if (launches.size() == 1 && !launches.front().program->communicates) {
    return Apart(launches.front(), config_).run(num_threads, poll, print);
  }
  std::vector<Share> shares;
  for (Launch& launch : launches) shares.emplace_back(launch, 0, launch.num_clusters());
  World world(std::move(shares), config_);
  RunReport report;
  try {
    report = world.run(poll);
  } catch (...) {
    print(world.printed());
    throw;
  }
  print(world.printed());
  return report;
}

}  // namespace openweek::simulator
