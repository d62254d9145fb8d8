// Maps of single numbers, the gate of a gated map, enlarging by repeated pixels, and the sampler's update.
#include "numbers.cuh"

enum Curve { SILU = 0, GELU = 1, QUICK_GELU = 2 };

__device__ __forceinline__ float bend(float x, int curve) {
  switch (curve) {
    case SILU: return silu(x);
    case GELU: return gelu(x);
    default: return x / (1.0f + __expf(-1.702f * x));
  }
}

// y = bend(x), both `count` long.
template <typename T> __device__ void bent(const T* x, T* y, int count, int curve) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at < count) y[at] = narrow<T>(bend(wide(x[at]), curve));
}

// x [rows, 2 * width], y [rows, width]: the first half times the GELU of the second. A thread makes eight numbers.
template <typename T> __device__ void geglu(const T* x, T* y, int rows, int width) {
  const int per_row = width / 8;
  const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= (size_t)rows * per_row) return;
  const size_t row = at / per_row, column = at % per_row * 8;
  float value[8], gate[8];
  load8(x + row * 2 * width + column, value);
  load8(x + row * 2 * width + width + column, gate);
#pragma unroll
  for (int i = 0; i < 8; ++i) value[i] *= gelu(gate[i]);
  store8(y + row * width + column, value);
}

// x [B, height, width, channels], y [B, tall, broad, channels]: torch's nearest. A thread copies 16 bytes; `channels`
// counts such.
extern "C" __global__ void enlarge(const uint4* x, uint4* y, int height, int width, int tall, int broad,
                                   int channels) {
  const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= (size_t)tall * broad * channels) return;
  const int channel = at % channels, column = at / channels % broad, row = at / channels / broad;
  const size_t from = ((size_t)(row * height / tall) * width + column * width / broad) * channels + channel;
  x += (size_t)blockIdx.y * height * width * channels;
  y += (size_t)blockIdx.y * tall * broad * channels;
  y[at] = x[from];
}

// y [rows, left + right]: rows of a [rows, left] and of b [rows, right] side by side. A thread copies 16 bytes; widths
// count such.
extern "C" __global__ void join(const uint4* a, const uint4* b, uint4* y, int rows, int left, int right) {
  const unsigned at = blockIdx.x * blockDim.x + threadIdx.x, width = left + right, row = at / width;
  if (row >= rows) return;
  const unsigned column = at % width;
  y[at] = column < left ? a[row * left + column] : b[row * right + column - left];
}

// Numbers in -1..=1 as bytes, rounded to nearest, half way to even. NaN is 0. A thread makes four bytes.
template <typename T> __device__ void bytes(const T* x, uchar4* y, int count) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count / 4) return;
  const auto byte = [&](int i) {
    const float shifted = fminf(fmaxf(fmaf(wide(x[4 * at + i]), 0.5f, 0.5f), 0.0f), 1.0f);
    return (unsigned char)rintf(shifted * 255.0f);
  };
  y[at] = {byte(0), byte(1), byte(2), byte(3)};
}

// For each of some rows up to eight terms, each with its coefficient; a term at address 0 is none.
struct Sums {
  unsigned long long terms[16][8];
  float coefficients[16][8];
};

// y[row] = the sum of coefficient times term, all f32 and `count` long. Grid (count / 256, rows).
extern "C" __global__ void combine(const __grid_constant__ Sums sums, float* y, int count) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
  if (at >= count) return;
  float sum = 0;
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const float* term = reinterpret_cast<const float*>(sums.terms[row][k]);
    if (term) sum += sums.coefficients[row][k] * term[at];
  }
  y[(size_t)row * count + at] = sum;
}

// Adds shift [B, channels] to every pixel of x [B, pixels, channels], where it lies. A thread takes eight numbers.
template <typename T> __device__ void shift(T* x, const T* by, int pixels, int channels) {
  const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  const int runs = channels / 8;
  if (at >= (size_t)pixels * runs) return;
  x += ((size_t)blockIdx.y * pixels * runs + at) * 8;
  float value[8], summand[8];
  load8(x, value);
  load8(by + (size_t)blockIdx.y * channels + at % runs * 8, summand);
#pragma unroll
  for (int i = 0; i < 8; ++i) value[i] += summand[i];
  store8(x, value);
}

// y = softmax(scale * x) of rows of `width` numbers, a multiple of 8; a block takes a row. x is f32.
template <typename T> __device__ void softmax(const float* x, T* y, int width, float scale) {
  __shared__ float mosts[32], sums[32];
  x += (size_t)blockIdx.x * width;
  y += (size_t)blockIdx.x * width;
  float most = -INFINITY, sum = 0, value[8];
  for (int column = threadIdx.x * 8; column < width; column += blockDim.x * 8) {
    load8(x + column, value);
    float peak = most;
#pragma unroll
    for (int i = 0; i < 8; ++i) peak = fmaxf(peak, value[i]);
    sum *= __expf((most - peak) * scale);
    most = peak;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += __expf((value[i] - most) * scale);
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  float peak = most;
  for (int reach = 16; reach > 0; reach /= 2) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, reach));
  sum = most == -INFINITY ? 0 : sum * __expf((most - peak) * scale);
  for (int reach = 16; reach > 0; reach /= 2) sum += __shfl_xor_sync(~0u, sum, reach);
  if (lane == 0) {
    mosts[warp] = peak;
    sums[warp] = sum;
  }
  __syncthreads();
  most = -INFINITY;
  for (int w = 0; w < warps; ++w) most = fmaxf(most, mosts[w]);
  sum = 0;
  for (int w = 0; w < warps; ++w) sum += mosts[w] == -INFINITY ? 0 : sums[w] * __expf((mosts[w] - most) * scale);
  const float whole = 1.0f / sum;
  for (int column = threadIdx.x * 8; column < width; column += blockDim.x * 8) {
    load8(x + column, value);
#pragma unroll
    for (int i = 0; i < 8; ++i) value[i] = __expf((value[i] - most) * scale) * whole;
    store8(y + column, value);
  }
}

#define MAKE(name, T)                                                                                           \
  extern "C" __global__ void bent_##name(const T* x, T* y, int count, int curve) { bent<T>(x, y, count, curve); } \
  extern "C" __global__ void shift_##name(T* x, const T* by, int pixels, int channels) {                          \
    shift<T>(x, by, pixels, channels);                                                                            \
  }                                                                                                               \
  extern "C" __global__ void softmax_##name(const float* x, T* y, int width, float scale) {                       \
    softmax<T>(x, y, width, scale);                                                                               \
  }                                                                                                               \
  extern "C" __global__ void bytes_##name(const T* x, uchar4* y, int count) { bytes<T>(x, y, count); }            \
  extern "C" __global__ void geglu_##name(const T* x, T* y, int rows, int width) { geglu<T>(x, y, rows, width); }
FOR_EACH_TYPE(MAKE)
