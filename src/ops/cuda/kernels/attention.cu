// Attention without stored scores (Dao 2023, "FlashAttention-2"): a block keeps 128 queries of one head, walks over the
// keys 64 at a time, and keeps a running maximum, sum and mix. Products run on tensor cores in 16 bits and add in f32.
#include "hopper.cuh"

constexpr int QUERIES = 128, KEYS = 64, WARPS = QUERIES / 16;

// Where the rows of the operands lie, in elements.
struct Sizes {
  int queries, keys, causal;
  int q_row, k_row, v_row, o_row;
  long long q_batch, k_batch, v_batch, o_batch;
  float scale; // of the scores, times log2(e)
};

// 2 to the power of x.
__device__ __forceinline__ float power(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Copies 16 bytes in the background, or zeros where not `valid`.
__device__ __forceinline__ void fetch(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0));
}
__device__ __forceinline__ void fetch_commit() { asm volatile("cp.async.commit_group;"); }
template <int LEFT> __device__ __forceinline__ void fetch_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT));
}

__device__ __forceinline__ void matrices(uint32_t r[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from));
}
__device__ __forceinline__ void matrices_transposed(uint32_t r[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from));
}

template <typename T>
__device__ __forceinline__ void multiply(float c[4], const uint32_t a[4], const uint32_t b[2]);
template <>
__device__ __forceinline__ void multiply<__half>(float c[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void multiply<__nv_bfloat16>(float c[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Byte offset of run `chunk` (16 bytes) of `row` in a tile of D columns: runs are shuffled so that eight rows' runs of
// one column lie in different banks.
template <int D> __device__ __forceinline__ uint32_t place(int row, int chunk) {
  const int shuffled = D >= 64 ? chunk ^ (row & 7) : chunk ^ ((row >> 1) & 3);
  return (row * (D / 8) + shuffled) * 16;
}

// Fetches `rows` rows of D columns from row `first` of `from`, zeros from row `end` on.
template <typename T, int D>
__device__ __forceinline__ void fetch_tile(uint32_t to, const T* from, int rows, int first, int end, int stride) {
  constexpr int CHUNKS = D / 8;
  for (int i = threadIdx.x; i < rows * CHUNKS; i += blockDim.x) {
    const int row = i / CHUNKS, chunk = i % CHUNKS;
    const bool valid = first + row < end;
    fetch(to + place<D>(row, chunk), from + (size_t)(valid ? first + row : 0) * stride + chunk * 8, valid);
  }
}

// q, k, v, o: row r of batch b starts at b * batch + r * row, head h at h * D of it.
// Grid (queries / 128, heads, B), 256 threads; dynamic shared memory (128 + 4 * 64) * D elements.
template <typename T, int D>
__device__ void attend(const T* q, const T* k, const T* v, T* o, const Sizes& sizes) {
  extern __shared__ __align__(128) unsigned char memory[];
  const uint32_t q_tile = shared_address(memory);
  const uint32_t k_tiles = q_tile + QUERIES * D * 2, v_tiles = k_tiles + 2 * KEYS * D * 2;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first = blockIdx.x * QUERIES;
  q += blockIdx.z * sizes.q_batch + blockIdx.y * D;
  k += blockIdx.z * sizes.k_batch + blockIdx.y * D;
  v += blockIdx.z * sizes.v_batch + blockIdx.y * D;
  o += blockIdx.z * sizes.o_batch + blockIdx.y * D;
  const int end = sizes.causal ? min(sizes.keys, first + QUERIES) : sizes.keys;
  const int tiles = (end + KEYS - 1) / KEYS;
  fetch_tile<T, D>(q_tile, q, QUERIES, first, sizes.queries, sizes.q_row);
  fetch_tile<T, D>(k_tiles, k, KEYS, 0, sizes.keys, sizes.k_row);
  fetch_tile<T, D>(v_tiles, v, KEYS, 0, sizes.keys, sizes.v_row);
  fetch_commit();

  uint32_t queries[D / 16][4];
  float mix[D / 8][4] = {};
  float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  for (int tile = 0; tile < tiles; ++tile) {
    const uint32_t k_tile = k_tiles + tile % 2 * KEYS * D * 2, v_tile = v_tiles + tile % 2 * KEYS * D * 2;
    fetch_wait<0>();
    __syncthreads();
    if (tile + 1 < tiles) {
      const uint32_t other = (tile + 1) % 2 * KEYS * D * 2;
      fetch_tile<T, D>(k_tiles + other, k, KEYS, (tile + 1) * KEYS, sizes.keys, sizes.k_row);
      fetch_tile<T, D>(v_tiles + other, v, KEYS, (tile + 1) * KEYS, sizes.keys, sizes.v_row);
      fetch_commit();
    }
    if (tile == 0) {
#pragma unroll
      for (int part = 0; part < D / 16; ++part)
        matrices(queries[part], q_tile + place<D>(warp * 16 + lane % 16, part * 2 + lane / 16));
    }
    float scores[KEYS / 8][4] = {};
#pragma unroll
    for (int part = 0; part < D / 16; ++part)
#pragma unroll
      for (int pair = 0; pair < KEYS / 16; ++pair) {
        uint32_t b[4];
        matrices(b, k_tile + place<D>(pair * 16 + lane / 16 * 8 + lane % 8, part * 2 + lane / 8 % 2));
        multiply<T>(scores[2 * pair], queries[part], b);
        multiply<T>(scores[2 * pair + 1], queries[part], b + 2);
      }
    // Element i of a score tile lies in row lane / 4 + i / 2 * 8, column lane % 4 * 2 + i % 2.
    const int row = first + warp * 16 + lane / 4;
    if ((tile + 1) * KEYS > sizes.keys || (sizes.causal && (tile + 1) * KEYS > first)) {
#pragma unroll
      for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = tile * KEYS + n * 8 + lane % 4 * 2 + i % 2;
          if (key >= sizes.keys || (sizes.causal && key > row + i / 2 * 8)) scores[n][i] = -INFINITY;
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float peak = most[half];
#pragma unroll
      for (int n = 0; n < KEYS / 8; ++n) peak = fmaxf(peak, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
      peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, 1));
      peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, 2));
      const float fade = power((most[half] - peak) * sizes.scale), offset = peak * sizes.scale;
      most[half] = peak;
      float part = 0;
#pragma unroll
      for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float weight = power(scores[n][2 * half + i] * sizes.scale - offset);
          scores[n][2 * half + i] = weight;
          part += weight;
        }
      sum[half] = sum[half] * fade + part;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        mix[n][2 * half] *= fade;
        mix[n][2 * half + 1] *= fade;
      }
    }
#pragma unroll
    for (int part = 0; part < KEYS / 16; ++part) {
      const uint32_t a[4] = {pack<T>(scores[2 * part][0], scores[2 * part][1]),
                             pack<T>(scores[2 * part][2], scores[2 * part][3]),
                             pack<T>(scores[2 * part + 1][0], scores[2 * part + 1][1]),
                             pack<T>(scores[2 * part + 1][2], scores[2 * part + 1][3])};
#pragma unroll
      for (int pair = 0; pair < D / 16; ++pair) {
        uint32_t b[4];
        matrices_transposed(b, v_tile + place<D>(part * 16 + lane % 16, pair * 2 + lane / 16));
        multiply<T>(mix[2 * pair], a, b);
        multiply<T>(mix[2 * pair + 1], a, b + 2);
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
    sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
    const float whole = 1.0f / sum[half];
    const int row = first + warp * 16 + lane / 4 + half * 8;
    if (row >= sizes.queries) continue;
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
      *reinterpret_cast<uint32_t*>(o + (size_t)row * sizes.o_row + n * 8 + lane % 4 * 2) =
          pack<T>(mix[n][2 * half] * whole, mix[n][2 * half + 1] * whole);
  }
}

#define ATTEND(name, T, D)                                                                                      \
  extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                      \
      attend_##D##_##name(const T* q, const T* k, const T* v, T* o, int queries, int keys, int causal,          \
                          int q_row, int k_row, int v_row, int o_row, long long q_batch, long long k_batch,     \
                          long long v_batch, long long o_batch, float scale) {                                  \
    attend<T, D>(q, k, v, o,                                                                                    \
                 {queries, keys, causal, q_row, k_row, v_row, o_row, q_batch, k_batch, v_batch, o_batch, scale}); \
  }
#define ATTEND_TYPES(D) ATTEND(f16, __half, D) ATTEND(bf16, __nv_bfloat16, D)
ATTEND_TYPES(32)
ATTEND_TYPES(64)

// The same for Hopper's own instructions: a warp fetches tiles with the copy engine while groups of four warps multiply
// from shared memory (Shah et al. 2024, "FlashAttention-3"). Heads are 64 wide, so that a row of a tile is 128 bytes and
// the engine's 128-byte shuffle is the layout that the tensor cores read.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr int WIDE_KEYS = 128, SHORT_KEYS = 80; // of a tile, where there are more than one, and where there is one
constexpr int STAGES = 2, TILE_BYTES = WIDE_KEYS * 128, SHORT_BYTES = SHORT_KEYS * 128;

template <typename T>
__device__ __forceinline__ void mix_step(float (&d)[32], const uint32_t (&a)[4], uint64_t b);
template <>
__device__ __forceinline__ void mix_step<__half>(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
__device__ __forceinline__ void mix_step<__nv_bfloat16>(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void maps_near(const void* q, const void* k, const void* v) {
  map_near(q);
  map_near(k);
  map_near(v);
}

// Queues the scores of 64 queries and a tile of keys.
template <typename T, int N> __device__ __forceinline__ void scores_begin(float (&scores)[N], uint32_t q, uint32_t k) {
  products_begin();
#pragma unroll
  for (int part = 0; part < 4; ++part) product_step<T>(scores, tile_at(q + part * 32), tile_at(k + part * 32), part);
  products_commit();
}

// Queues the mix of a tile of values.
template <typename T, int N>
__device__ __forceinline__ void mix_begin(float (&mix)[32], const uint32_t (&weights)[N][4], uint32_t v) {
  products_begin();
#pragma unroll
  for (int part = 0; part < N; ++part) mix_step<T>(mix, weights[part], tile_at(v + part * 16 * 128));
  products_commit();
}

// Turns scores into weights in place; returns how earlier sums fade, for both rows that a thread holds. Maxima and sums are
// taken in two chains, which do not wait for one another.
template <int N>
__device__ __forceinline__ void weigh(float (&scores)[N], float (&most)[2], float (&sum)[2], float (&fade)[2], float scale) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float peaks[2] = {most[half], most[half]}, parts[2] = {};
#pragma unroll
    for (int n = 0; n < N / 2; ++n) peaks[n % 2] = fmaxf(peaks[n % 2], scores[n / 2 * 4 + 2 * half + n % 2]);
    float peak = fmaxf(peaks[0], peaks[1]);
    peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, 1));
    peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, 2));
    fade[half] = power((most[half] - peak) * scale);
    most[half] = peak;
    const float offset = peak * scale;
#pragma unroll
    for (int n = 0; n < N / 2; ++n) {
      float& score = scores[n / 2 * 4 + 2 * half + n % 2];
      score = power(score * scale - offset);
      parts[n % 2] += score;
    }
    sum[half] = sum[half] * fade[half] + (parts[0] + parts[1]);
  }
}

// Hides keys from `keys` on, in the tile that begins with key `first`.
template <int N> __device__ __forceinline__ void hide(float (&scores)[N], int first, int keys) {
  if (first + 2 * N <= keys) return;
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (first + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2 >= keys) scores[i] = -INFINITY;
}

template <typename T, int N> __device__ __forceinline__ void weights_pack(uint32_t (&to)[N / 8][4], const float (&from)[N]) {
#pragma unroll
  for (int part = 0; part < N / 8; ++part)
#pragma unroll
    for (int i = 0; i < 4; ++i) to[part][i] = pack<T>(from[8 * part + 2 * i], from[8 * part + 2 * i + 1]);
}

// Stores the mixes of 64 queries from `first` on, over the sums of their weights.
template <typename T>
__device__ __forceinline__ void mix_store(const float (&mix)[32], float (&sum)[2], T* o, int first, int queries, int o_row) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
    sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
    const float whole = 1.0f / sum[half];
    const int row = first + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + half * 8;
    if (row >= queries) continue;
#pragma unroll
    for (int n = 0; n < 8; ++n)
      *reinterpret_cast<uint32_t*>(o + (size_t)row * o_row + n * 8 + threadIdx.x % 4 * 2) =
          pack<T>(mix[4 * n + 2 * half] * whole, mix[4 * n + 2 * half + 1] * whole);
  }
}
#endif

// How the heads of all rows are cut into blocks: each head into some of three groups of queries, then some of two.
struct Spread {
  int heads, all;     // heads of a row, and of all rows
  int threes, twos;   // blocks of a head
  int more;           // that many heads, the first, have two blocks of three more and three of two less
};

// What a block attends to.
struct Place {
  int head, batch;
  int first, groups; // its first group of 64 queries, and how many it has
};

// All blocks of three come first: the smaller ones fill up what is left.
__device__ __forceinline__ Place place_of(const Spread& spread) {
  const int wide_blocks = spread.all * spread.threes + 2 * spread.more;
  const bool wide = (int)blockIdx.x < wide_blocks;
  const int few = wide ? spread.threes : spread.twos, many = wide ? few + 2 : few - 3;
  int nth = blockIdx.x - (wide ? 0 : wide_blocks), head = 0;
  if (nth < spread.more * many) {
    head = nth / many;
    nth %= many;
  } else {
    nth -= spread.more * many;
    head = spread.more + nth / few;
    nth %= few;
  }
  const int before = 3 * (spread.threes + (head < spread.more ? 2 : 0));
  return {head % spread.heads, head / spread.heads, wide ? 3 * nth : before + 2 * nth, wide ? 3 : 2};
}

// A group of four warps fetches, three others or two each take 64 queries. q, k, v: maps of [B, L, columns] with boxes of 64
// columns and 192 or WIDE_KEYS rows. 512 threads.
template <typename T>
__device__ void attend_wide(const void* q, const void* k, const void* v, T* o, int queries, int keys, int o_row,
                            long long o_batch, float scale, const Spread& spread) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ unsigned char raw[];
  __shared__ uint64_t barriers[1 + 4 * STAGES];
  const uint32_t q_tile = (shared_address(raw) + 1023) / 1024 * 1024;
  const uint32_t k_tiles = q_tile + 3 * 64 * 128, v_tiles = k_tiles + STAGES * TILE_BYTES;
  const uint32_t q_full = shared_address(barriers);
  const uint32_t k_full = q_full + 8, v_full = k_full + 8 * STAGES;
  const uint32_t k_free = v_full + 8 * STAGES, v_free = k_free + 8 * STAGES;
  const Place place = place_of(spread);
  const int group = threadIdx.x / 128, tiles = (keys + WIDE_KEYS - 1) / WIDE_KEYS;
  if (threadIdx.x == 32) maps_near(q, k, v);
  if (threadIdx.x == 0) {
    barrier_make(q_full, 1);
    for (int stage = 0; stage < STAGES; ++stage) {
      barrier_make(k_full + 8 * stage, 1);
      barrier_make(v_full + 8 * stage, 1);
      barrier_make(k_free + 8 * stage, place.groups);
      barrier_make(v_free + 8 * stage, place.groups);
    }
    barriers_made();
  }
  __syncthreads();
  after_others();
  if (group == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x == 0) {
      const int column = place.head * 64, batch = place.batch;
      barrier_expect(q_full, 3 * 64 * 128);
      copy_box(q_tile, q, q_full, column, place.first * 64, batch);
      for (int tile = 0; tile < tiles; ++tile) {
        const int stage = tile % STAGES, turn = tile / STAGES & 1;
        barrier_wait(k_free + 8 * stage, turn ^ 1);
        barrier_expect(k_full + 8 * stage, TILE_BYTES);
        copy_box(k_tiles + stage * TILE_BYTES, k, k_full + 8 * stage, column, tile * WIDE_KEYS, batch);
        barrier_wait(v_free + 8 * stage, turn ^ 1);
        barrier_expect(v_full + 8 * stage, TILE_BYTES);
        copy_box(v_tiles + stage * TILE_BYTES, v, v_full + 8 * stage, column, tile * WIDE_KEYS, batch);
      }
    }
  } else if (group <= place.groups) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
    const uint32_t q_part = q_tile + (group - 1) * 64 * 128;
    float scores[WIDE_KEYS / 2], mix[32] = {}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, fade[2];
    uint32_t weights[WIDE_KEYS / 16][4];
    const bool speaks = threadIdx.x % 128 == 0;
    barrier_wait(q_full, 0);
    barrier_wait(k_full, 0);
    scores_begin<T>(scores, q_part, k_tiles);
    products_wait<0>();
    pin(scores);
    if (speaks) barrier_arrive(k_free);
    hide(scores, 0, keys);
    weigh(scores, most, sum, fade, scale);
    weights_pack<T>(weights, scores);
    for (int tile = 1; tile < tiles; ++tile) {
      const int stage = tile % STAGES, before = (tile - 1) % STAGES;
      barrier_wait(k_full + 8 * stage, tile / STAGES & 1);
      barrier_wait(v_full + 8 * before, (tile - 1) / STAGES & 1);
      pin(scores);
      scores_begin<T>(scores, q_part, k_tiles + stage * TILE_BYTES);
      pin(mix);
      mix_begin<T>(mix, weights, v_tiles + before * TILE_BYTES);
      products_wait<1>();
      pin(scores);
      if (speaks) barrier_arrive(k_free + 8 * stage);
      hide(scores, tile * WIDE_KEYS, keys);
      weigh(scores, most, sum, fade, scale);
      // It never sleeps: the assembler, which would wait for the mix of the values before and weigh only then, has to know both
      // sums here.
      if (sum[0] + sum[1] < 0.0f) asm volatile("nanosleep.u32 0;");
      products_wait<0>();
      pin(mix);
      if (speaks) barrier_arrive(v_free + 8 * before);
#pragma unroll
      for (int i = 0; i < 32; ++i) mix[i] *= fade[i / 2 % 2];
      weights_pack<T>(weights, scores);
    }
    const int last = (tiles - 1) % STAGES;
    barrier_wait(v_full + 8 * last, (tiles - 1) / STAGES & 1);
    pin(mix);
    mix_begin<T>(mix, weights, v_tiles + last * TILE_BYTES);
    products_wait<0>();
    pin(mix);
    mix_store(mix, sum, o + place.batch * o_batch + place.head * 64, (place.first + group - 1) * 64, queries, o_row);
  }
#endif
}

// The same for no more keys than a tile holds: 64 queries a block, several blocks a multiprocessor, whose waits overlap.
// Grid (queries / 64, heads, B), 128 threads.
template <typename T>
__device__ void attend_short(const void* q, const void* k, const void* v, T* o, int queries, int keys, int o_row,
                             long long o_batch, float scale) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ unsigned char raw[];
  __shared__ uint64_t barriers[2];
  const uint32_t q_tile = (shared_address(raw) + 1023) / 1024 * 1024;
  const uint32_t k_tile = q_tile + 64 * 128, v_tile = k_tile + SHORT_BYTES;
  const uint32_t scored = shared_address(barriers), mixed = scored + 8;
  if (threadIdx.x == 32) maps_near(q, k, v);
  if (threadIdx.x == 0) {
    barrier_make(scored, 1);
    barrier_make(mixed, 1);
    barriers_made();
  }
  __syncthreads();
  after_others();
  if (threadIdx.x == 0) {
    const int column = blockIdx.y * 64, batch = blockIdx.z;
    barrier_expect(scored, 64 * 128 + SHORT_BYTES);
    copy_box(q_tile, q, scored, column, blockIdx.x * 64, batch);
    copy_box(k_tile, k, scored, column, 0, batch);
    barrier_expect(mixed, SHORT_BYTES);
    copy_box(v_tile, v, mixed, column, 0, batch);
  }
  __syncwarp();
  float scores[SHORT_KEYS / 2], mix[32] = {}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, fade[2];
  uint32_t weights[SHORT_KEYS / 16][4];
  barrier_wait(scored, 0);
  scores_begin<T>(scores, q_tile, k_tile);
  products_wait<0>();
  pin(scores);
  hide(scores, 0, keys);
  weigh(scores, most, sum, fade, scale);
  weights_pack<T>(weights, scores);
  barrier_wait(mixed, 0);
  pin(mix);
  mix_begin<T>(mix, weights, v_tile);
  products_wait<0>();
  pin(mix);
  mix_store(mix, sum, o + blockIdx.z * o_batch + blockIdx.y * 64, blockIdx.x * 64, queries, o_row);
#endif
}

#define ATTEND_WIDE(name, T)                                                                                    \
  extern "C" __global__ void __launch_bounds__(512, 1)                                                          \
      attend_wide_##name(const __grid_constant__ Map q, const __grid_constant__ Map k,                          \
                         const __grid_constant__ Map v, T* o, int queries, int keys, int o_row,                 \
                         long long o_batch, float scale, const __grid_constant__ Spread spread) {               \
    attend_wide<T>(&q, &k, &v, o, queries, keys, o_row, o_batch, scale, spread);                                \
  }
ATTEND_WIDE(f16, __half)
ATTEND_WIDE(bf16, __nv_bfloat16)

#define ATTEND_SHORT(name, T)                                                                                   \
  extern "C" __global__ void __launch_bounds__(128, 4)                                                          \
      attend_short_##name(const __grid_constant__ Map q, const __grid_constant__ Map k,                         \
                          const __grid_constant__ Map v, T* o, int queries, int keys, int o_row,                \
                          long long o_batch, float scale) {                                                     \
    attend_short<T>(&q, &k, &v, o, queries, keys, o_row, o_batch, scale);                                       \
  }
ATTEND_SHORT(f16, __half)
ATTEND_SHORT(bf16, __nv_bfloat16)
