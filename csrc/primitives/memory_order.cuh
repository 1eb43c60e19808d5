// Fences that order more than one thread's own loads and stores.
#pragma once

namespace openweek::primitives {

// Between this thread's ordinary stores to shared memory and the asynchronous engines (TMA stores,
// wgmma operands), which otherwise may read what was there before. Goes before the barrier that
// lets another thread start the engine: each writer fences its own stores.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Makes initialised mbarriers known to the other CTAs and to the engines that complete them. A
// barrier of the cluster must follow before anybody uses them.
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

}  // namespace openweek::primitives
