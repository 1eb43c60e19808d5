// What the simulator runs when no tensor core and no copy is in the way: arithmetic and branches.
namespace openweek::benchmarks {

__global__ void iterate(float *values, float factor, float offset,
                        int num_steps) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  float value = values[i];
  for (int step = 0; step < num_steps; ++step) {
    value = value * factor + offset;
    if (value > 1.0f)
      value -= 1.0f;
  }
  values[i] = value;
}

} // namespace openweek::benchmarks
