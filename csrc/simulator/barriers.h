// What a CTA's named barrier does when somebody arrives or leaves.
#pragma once

namespace openweek::simulator {

class Cta;
struct NamedBarrier;

// Completes the barrier if all that it waits for have arrived; those that have exited count too.
void complete_if_full(Cta& cta, NamedBarrier& barrier);

}  // namespace openweek::simulator
