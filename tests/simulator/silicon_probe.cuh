// What all kernels have in common that ask the machine a question: a tensor map, words to read and
// words to write, so that one signature fits.
#pragma once

#include "primitives/tma.cuh"

#define PROBE(name)                                                                            \
  extern "C" __global__ void name(const __grid_constant__ openweek::primitives::TensorMap map, \
                                  const uint32_t* in, uint32_t* out)
