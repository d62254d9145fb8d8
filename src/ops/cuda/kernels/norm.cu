// Group norm with SiLU, and layer norm. Statistics are f32 and taken about a pivot, a number of the group itself, so
// that a mean far from zero costs no digits. Weights and biases are f32.
#include "numbers.cuh"

constexpr int GROUPS_MOST = 32;

// Sums of one chunk of pixels: for each group the sum of x - pivot and of its square.
// x [B, pixels, channels]; partial [B, chunks, groups, 2]. A thread keeps eight channels and walks over pixels.
// Grid (chunks, B), block (channels / 8, rows); dynamic shared memory 2 * rows * channels floats.
template <typename T>
__device__ void group_sums(const T* __restrict__ x, float* __restrict__ partial, int pixels, int channels, int groups) {
  extern __shared__ float sums[]; // [rows][channels][2]
  after_others();
  const int column = threadIdx.x * 8;
  const int per_chunk = (pixels + gridDim.x - 1) / gridDim.x;
  const int from = blockIdx.x * per_chunk, to = min(from + per_chunk, pixels);
  const int width = channels / groups;
  x += (size_t)blockIdx.y * pixels * channels;
  float pivot[8], sum[8] = {}, square[8] = {}, value[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) pivot[i] = wide(x[(column + i) / width * width]);
#pragma unroll 4
  for (int pixel = from + threadIdx.y; pixel < to; pixel += blockDim.y) {
    load8(x + (size_t)pixel * channels + column, value);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float off = value[i] - pivot[i];
      sum[i] += off;
      square[i] += off * off;
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float* at = sums + 2 * (threadIdx.y * channels + column + i);
    at[0] = sum[i];
    at[1] = square[i];
  }
  __syncthreads();
  // Rows first, a thread for each channel; then channels, eight threads of one warp for each group.
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  float2* pairs = reinterpret_cast<float2*>(sums);
  for (int channel = thread; channel < channels; channel += threads) {
    float2 total = pairs[channel];
    for (int row = 1; row < blockDim.y; ++row) {
      total.x += pairs[row * channels + channel].x;
      total.y += pairs[row * channels + channel].y;
    }
    pairs[channel] = total;
  }
  __syncthreads();
  for (int at = thread; at < (groups * 8 + 31) / 32 * 32; at += threads) {
    const int group = at / 8;
    float2 total = {0, 0};
    for (int channel = at % 8; group < groups && channel < width; channel += 8) {
      total.x += pairs[group * width + channel].x;
      total.y += pairs[group * width + channel].y;
    }
    for (int reach = 4; reach > 0; reach /= 2) {
      total.x += __shfl_xor_sync(~0u, total.x, reach);
      total.y += __shfl_xor_sync(~0u, total.y, reach);
    }
    if (at % 8 == 0 && group < groups)
      reinterpret_cast<float2*>(partial)[((size_t)blockIdx.y * gridDim.x + blockIdx.x) * groups + group] = total;
  }
}

// Adds the chunks' sums up, normalises one chunk, scales and shifts channels, then SiLU where `active`.
// Grid and block as above.
template <typename T>
__device__ void group_apply(const T* __restrict__ x, T* __restrict__ y, const float* __restrict__ partial,
                            const float* __restrict__ weight, const float* __restrict__ bias,
                            int pixels, int channels, int groups, int chunks, float eps, int active) {
  constexpr int SLICES = 32;
  __shared__ float means[GROUPS_MOST], scales[GROUPS_MOST];
  __shared__ float2 sums[SLICES][GROUPS_MOST];
  after_others();
  const int width = channels / groups;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int slices = min(blockDim.x * blockDim.y / groups, SLICES);
  x += (size_t)blockIdx.y * pixels * channels;
  y += (size_t)blockIdx.y * pixels * channels;
  // Each thread adds up some chunks of one group, neighbours their neighbouring groups.
  const int own = thread % groups, slice = thread / groups;
  if (slice < slices) {
    const float2* from = reinterpret_cast<const float2*>(partial) + (size_t)blockIdx.y * chunks * groups + own;
    float2 total = {0, 0};
#pragma unroll 8
    for (int chunk = slice; chunk < chunks; chunk += slices) {
      const float2 part = from[chunk * groups];
      total.x += part.x;
      total.y += part.y;
    }
    sums[slice][own] = total;
  }
  __syncthreads();
  if (thread < groups) {
    float total = 0, squares = 0;
    for (int part = 0; part < slices; ++part) {
      total += sums[part][thread].x;
      squares += sums[part][thread].y;
    }
    const float count = (float)pixels * width, mean = total / count;
    means[thread] = mean + wide(x[thread * width]);
    scales[thread] = rsqrtf(fmaxf(squares / count - mean * mean, 0.0f) + eps);
  }
  __syncthreads();
  const int column = threadIdx.x * 8;
  float factor[8], summand[8], mean[8], value[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int group = (column + i) / width;
    factor[i] = scales[group] * weight[column + i];
    summand[i] = bias[column + i];
    mean[i] = means[group];
  }
  const int per_chunk = (pixels + gridDim.x - 1) / gridDim.x;
  const int from = blockIdx.x * per_chunk, to = min(from + per_chunk, pixels);
#pragma unroll 4
  for (int pixel = from + threadIdx.y; pixel < to; pixel += blockDim.y) {
    const size_t at = (size_t)pixel * channels + column;
    load8(x + at, value);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      value[i] = (value[i] - mean[i]) * factor[i] + summand[i];
      if (active) value[i] = silu(value[i]);
    }
    store8(y + at, value);
  }
}

// One warp a row of up to 2048 channels, kept in registers: mean first, then the variance about it.
template <typename T>
__device__ void layer_norm(const T* x, T* y, const float* weight, const float* bias, int rows, int channels,
                           float eps) {
  constexpr int MOST = 8; // runs of eight channels a lane
  const int row = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
  if (row >= rows) return;
  x += (size_t)row * channels;
  y += (size_t)row * channels;
  float value[MOST][8], total = 0, squares = 0;
#pragma unroll
  for (int run = 0; run < MOST; ++run) {
    const int column = (run * 32 + lane) * 8;
    if (column < channels) {
      load8(x + column, value[run]);
#pragma unroll
      for (int i = 0; i < 8; ++i) total += value[run][i];
    }
  }
  for (int reach = 16; reach > 0; reach /= 2) total += __shfl_xor_sync(~0u, total, reach);
  const float mean = total / channels;
#pragma unroll
  for (int run = 0; run < MOST; ++run) {
    if ((run * 32 + lane) * 8 < channels) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        value[run][i] -= mean;
        squares += value[run][i] * value[run][i];
      }
    }
  }
  for (int reach = 16; reach > 0; reach /= 2) squares += __shfl_xor_sync(~0u, squares, reach);
  const float scale = rsqrtf(squares / channels + eps);
#pragma unroll
  for (int run = 0; run < MOST; ++run) {
    const int column = (run * 32 + lane) * 8;
    if (column < channels) {
      float factor[8], summand[8];
      load8(weight + column, factor);
      load8(bias + column, summand);
#pragma unroll
      for (int i = 0; i < 8; ++i) value[run][i] = value[run][i] * scale * factor[i] + summand[i];
      store8(y + column, value[run]);
    }
  }
}

#define MAKE(name, T)                                                                                           \
  extern "C" __global__ void group_sums_##name(const T* x, float* partial, int pixels, int channels,            \
                                               int groups) {                                                    \
    group_sums<T>(x, partial, pixels, channels, groups);                                                        \
  }                                                                                                             \
  extern "C" __global__ void group_apply_##name(const T* x, T* y, const float* partial, const float* weight,    \
                                                const float* bias, int pixels, int channels, int groups,        \
                                                int chunks, float eps, int active) {                            \
    group_apply<T>(x, y, partial, weight, bias, pixels, channels, groups, chunks, eps, active);                 \
  }                                                                                                             \
  extern "C" __global__ void layer_norm_##name(const T* x, T* y, const float* weight, const float* bias,        \
                                               int rows, int channels, float eps) {                             \
    layer_norm<T>(x, y, weight, bias, rows, channels, eps);                                                     \
  }
FOR_EACH_TYPE(MAKE)
