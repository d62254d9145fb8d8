// Hopper's own instructions: barriers in shared memory, the copy engine, and products of a group of four warps.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

// A map of the copy engine, as the driver encodes it.
struct alignas(64) Map {
  unsigned char bytes[128];
};

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Two neighbours as they are stored.
template <typename T> __device__ __forceinline__ uint32_t pack(float low, float high);
template <> __device__ __forceinline__ uint32_t pack<__half>(float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}
template <> __device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}
template <typename T> __device__ __forceinline__ float2 unpack(uint32_t both);
template <> __device__ __forceinline__ float2 unpack<__half>(uint32_t both) {
  return __half22float2(*reinterpret_cast<const __half2*>(&both));
}
template <> __device__ __forceinline__ float2 unpack<__nv_bfloat16>(uint32_t both) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&both));
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// Tells the tensor cores of a tile at `at`: 128-byte rows, shuffled, eight rows in 1024 bytes.
__device__ __forceinline__ uint64_t tile_at(uint32_t at) {
  return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)1 << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

// The tile so many bytes behind `tile`: an address fits in the low word, so that nothing is carried.
__device__ __forceinline__ uint64_t tile_behind(uint64_t tile, int bytes) {
  return (tile & ~0xffffffffull) | (uint32_t)((uint32_t)tile + bytes / 16);
}
// A number that all threads of a warp have in common, known as such to the compiler, which does not make it again.
__device__ __forceinline__ int common(int x) { return __shfl_sync(~0u, x, 0); }

__device__ __forceinline__ void barrier_make(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
// Makes barriers known to the copy engine, and to the cluster.
__device__ __forceinline__ void barriers_made() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives at a barrier in whichever block of the cluster.
__device__ __forceinline__ void barrier_arrive_there(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t barrier, int parity) {
  asm volatile(
      "{\n.reg .pred p;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra again;\n}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// Brings a map near before it is used.
__device__ __forceinline__ void map_near(const void* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// Copies the box at (column, row, batch) of `map`.
__device__ __forceinline__ void copy_box(uint32_t to, const void* map, uint32_t barrier, int column, int row, int batch) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
      ::"r"(to), "l"(map), "r"(barrier), "r"(column), "r"(row), "r"(batch)
      : "memory");
}
// Copies the box of a picture at `at`: channel, column, row, batch.
__device__ __forceinline__ void copy_picture(uint32_t to, const void* map, uint32_t barrier, int4 at) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(at.x), "r"(at.y), "r"(at.z), "r"(at.w)
      : "memory");
}
// Copies the box at (column, row) of a matrix.
__device__ __forceinline__ void copy_weights(uint32_t to, const void* map, uint32_t barrier, int column, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row)
      : "memory");
}
// Copies the box at (column, row) of a matrix to the same place in both blocks of a cluster, and tells the barrier of each.
__device__ __forceinline__ void copy_weights_to_both(uint32_t to, const void* map, uint32_t barrier, int column, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row), "h"((short)3)
      : "memory");
}
// Writes a box of a picture back; what lies beyond the picture is left out.
__device__ __forceinline__ void store_picture(const void* map, uint32_t from, int4 at) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
               "r"(from), "r"(at.x), "r"(at.y), "r"(at.z), "r"(at.w)
               : "memory");
}
__device__ __forceinline__ void stores_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Waits until what was to be stored has been read.
__device__ __forceinline__ void stores_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
__device__ __forceinline__ void stores_done() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
__device__ __forceinline__ uint32_t load_shared(uint32_t from) {
  uint32_t both;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(both) : "r"(from));
  return both;
}
// Copies 16 bytes for this thread, which may wait for them.
__device__ __forceinline__ void copy_run(uint32_t to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void runs_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
// Makes ordinary writes to shared memory known to the copy engine.
__device__ __forceinline__ void writes_shown() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Which block of its cluster this one is.
__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// Where `at` of this block's shared memory lies in that of another block of the cluster.
__device__ __forceinline__ uint32_t in_block(uint32_t at, uint32_t rank) {
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(rank));
  return there;
}
// Waits for all threads of the cluster.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Waits for the kernel before this one in the stream, and lets the next one begin.
__device__ __forceinline__ void after_others() {
  asm volatile("griddepcontrol.wait;\ngriddepcontrol.launch_dependents;" ::: "memory");
}

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int LEFT> __device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}
// Keeps the compiler from moving uses of accumulators across this point.
template <int N> __device__ __forceinline__ void pin(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(x[i])::"memory");
}

#define SUMS4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SUMS16(i) SUMS4(i), SUMS4(i + 4), SUMS4(i + 8), SUMS4(i + 12)
#define PLACES0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define PLACES16 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PLACES32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define PLACES48 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PLACES64 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"

// d (+)= a b^T: 64 rows of a, `columns` rows of b, 16 numbers of each; d is overwritten where `more` is 0.
template <typename T> __device__ __forceinline__ void product_step(float (&d)[40], uint64_t a, uint64_t b, int more);
template <typename T> __device__ __forceinline__ void product_step(float (&d)[48], uint64_t a, uint64_t b, int more);
template <typename T> __device__ __forceinline__ void product_step(float (&d)[64], uint64_t a, uint64_t b, int more);
template <typename T> __device__ __forceinline__ void product_step(float (&d)[80], uint64_t a, uint64_t b, int more);
#define PRODUCT_STEP(T, name, columns, a_place, b_place, more_place, places, ...)                                        \
  template <>                                                                                                            \
  __device__ __forceinline__ void product_step<T>(float(&d)[columns / 2], uint64_t a, uint64_t b, int more) {            \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " more_place ", 0;\n"                                                 \
                 "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." name "." name " {" places "}, " a_place         \
                 ", " b_place ", p, 1, 1, 0, 0;\n}\n"                                                                    \
                 : __VA_ARGS__                                                                                           \
                 : "l"(a), "l"(b), "r"(more));                                                                           \
  }
#define PLACES_48 PLACES0 ", " PLACES16 ", " PLACES32
#define SUMS_48 SUMS16(0), SUMS16(16), SUMS16(32)
#define PRODUCT_STEPS(T, name)                                                                                           \
  PRODUCT_STEP(T, name, 80, "%40", "%41", "%42", PLACES0 ", " PLACES16 ", %32, %33, %34, %35, %36, %37, %38, %39",       \
               SUMS16(0), SUMS16(16), SUMS4(32), SUMS4(36))                                                              \
  PRODUCT_STEP(T, name, 96, "%48", "%49", "%50", PLACES_48, SUMS_48)                                                     \
  PRODUCT_STEP(T, name, 128, "%64", "%65", "%66", PLACES_48 ", " PLACES48, SUMS_48, SUMS16(48))                          \
  PRODUCT_STEP(T, name, 160, "%80", "%81", "%82", PLACES_48 ", " PLACES48 ", " PLACES64, SUMS_48, SUMS16(48), SUMS16(64))
PRODUCT_STEPS(__half, "f16")
PRODUCT_STEPS(__nv_bfloat16, "bf16")
#endif
