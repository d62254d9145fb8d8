// Eight numbers at a time, whatever type they are stored in; arithmetic is f32.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ float wide(__half x) { return __half2float(x); }
__device__ __forceinline__ float wide(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ __half narrow<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// Eight neighbours, aligned to 16 bytes.
template <typename T> __device__ __forceinline__ void load8(const T* from, float to[8]) {
  alignas(16) T raw[8];
#pragma unroll
  for (int i = 0; i < (int)sizeof(raw) / 16; ++i)
    reinterpret_cast<uint4*>(raw)[i] = reinterpret_cast<const uint4*>(from)[i];
#pragma unroll
  for (int i = 0; i < 8; ++i) to[i] = wide(raw[i]);
}

template <typename T> __device__ __forceinline__ void store8(T* to, const float from[8]) {
  alignas(16) T raw[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) raw[i] = narrow<T>(from[i]);
#pragma unroll
  for (int i = 0; i < (int)sizeof(raw) / 16; ++i)
    reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(raw)[i];
}

__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }
__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// Waits for the kernel before this one in the stream, and lets the next one begin.
__device__ __forceinline__ void after_others() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\ngriddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Makes `name_f32`, `name_f16` and `name_bf16` of a template.
#define FOR_EACH_TYPE(MAKE) MAKE(f32, float) MAKE(f16, __half) MAKE(bf16, __nv_bfloat16)
