// Products and 3x3 convolutions on Hopper: a warp fetches tiles with the copy engine, two groups of four warps multiply 64
// rows each, and what a product is followed by is done while its sums are in registers.
//
// Rows are the pixels of pictures: a matrix is one picture one pixel high. A tile has 128 rows, a box of pixels, or 64 where
// there are few, and COLUMNS columns, 160 or 128. A convolution is a product over taps and channels whose rows are fetched from pixels nearby; what lies
// beyond a picture is read as zeros.
#include "hopper.cuh"

// What follows a product, in this order.
enum Finish {
  NORMED = 1,   // its rows are normalised, which is made up for behind it: rows of x are taken as they are
  SHIFTED = 2,  // each picture's columns are shifted by numbers of its own
  GATED = 4,    // of sixteen columns the first eight are multiplied by the GELU of the others
  ADDED = 8,    // a picture is added
  MEASURED = 16, // mean and squares of each row's columns are kept
  SPLIT = 32     // rows from one on have more added to their columns
};

struct Job {
  int depth;            // runs of 64 channels of a tap
  int taps, tap_width;  // taps, and those of a line
  int tap_x, tap_y;     // where the first lies
  int channels;         // from one tap's weights to the next
  int wide, tall;       // a picture in tiles
  int box_x, box_y;     // a tile in pixels
  int groups;           // groups of warps that share a tile, 64 rows each
  int row_tiles, column_tiles;
  int band;             // row tiles that are done with all columns before the next: both operands then stay in the cache
  int outputs;          // columns in all, a multiple of a tile's
  int rows;             // rows in all
  int parts;            // of the moments that are read: column tiles of the product that made the rows
  int split;            // the row from which on columns have more added
  float eps;            // of the norm
};

// Where numbers besides the operands lie.
struct Besides {
  const float4* columns;   // for two columns: what is added to them, then the sums of their weights, or what split rows have more
  const void* shift;       // [pictures, outputs], of the operands' type
  const float2* moments;   // [rows, parts]: mean and squares about it of parts of rows that are to be normalised
  float2* moments_out;     // [rows, column_tiles]: of what is made
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr int ROW_BYTES = 128 * 128;  // rows of a stage
constexpr int STAGES = 5;

// Bytes of a stage of tiles with so many columns.
__host__ __device__ constexpr int stage_of(int columns) { return ROW_BYTES + columns * 128; }
// Parts that a row is stored in, and bytes of a row of a part.
__host__ __device__ constexpr int chunks_of(int columns) { return columns / 32; }
__host__ __device__ constexpr int line_of(int finish) { return finish & GATED ? 32 : 64; }
// Bytes of what a group of warps stores of 64 rows.
__host__ __device__ constexpr int part_of(int finish, int columns) { return 64 * line_of(finish) * chunks_of(columns); }
// Bytes of what a group of warps keeps of a tile's columns: two pairs of f32 for two columns, then numbers that shift them.
__host__ __device__ constexpr int kept_of(int columns) { return columns * 10; }

// x times the share of a normal distribution that lies below x (Abramowitz and Stegun 7.1.26: off by 1.5e-7 at most).
__device__ __forceinline__ float gelu_near(float x) {
  const float size = fabsf(x);
  float t, e;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(t) : "f"(fmaf(size, 0.3275911f * 0.70710678f, 1.0f)));
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(x * x * -0.72134752f));
  float tail = fmaf(t, 0.5f * 1.061405429f, 0.5f * -1.453152027f);
  tail = fmaf(tail, t, 0.5f * 1.421413741f);
  tail = fmaf(tail, t, 0.5f * -0.284496736f);
  tail = fmaf(tail, t, 0.5f * 0.254829592f) * t;
  return fmaxf(x, 0.0f) - size * tail * e;
}

// The moments of a row's parts, eight at most, shared out to four neighbouring lanes. What is loaded before a product is
// there when the product is done.
struct Moments {
  float2 own[2];
};
__device__ __forceinline__ Moments load_moments(const float2* from, int parts) {
  Moments moments = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int part = threadIdx.x % 4 + 4 * i;
    if (part < parts)
      asm volatile("ld.global.v2.f32 {%0, %1}, [%2];" : "=f"(moments.own[i].x), "=f"(moments.own[i].y) : "l"(from + part));
  }
  return moments;
}

// Mean and scale of a row from its parts' moments, each of `width` numbers.
__device__ __forceinline__ float2 row_scale(const Moments& moments, int parts, int width, float eps) {
  float mean = moments.own[0].x + moments.own[1].x;
  mean += __shfl_xor_sync(~0u, mean, 1);
  mean += __shfl_xor_sync(~0u, mean, 2);
  mean /= parts;
  float squares = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i)
    if ((int)(threadIdx.x % 4) + 4 * i < parts) {
      const float off = moments.own[i].x - mean;
      squares += moments.own[i].y + off * off * width;
    }
  squares += __shfl_xor_sync(~0u, squares, 1);
  squares += __shfl_xor_sync(~0u, squares, 2);
  return {mean, rsqrtf(squares / (parts * width) + eps)};
}

// Fetches what a tile's columns have added, and what shifts them: 16 bytes a thread of a group.
template <typename T, int FINISH, int COLUMNS>
__device__ __forceinline__ void fetch_columns(uint32_t to, const Job& job, const Besides& besides, int picture, int column) {
  const int run = threadIdx.x % 128, shift = run - COLUMNS / 2;
  if (run < COLUMNS / 2) copy_run(to + run * 16, besides.columns + column / 2 + run);
  if (FINISH & SHIFTED && shift >= 0 && shift < COLUMNS / 8)
    copy_run(to + run * 16, static_cast<const T*>(besides.shift) + (size_t)picture * job.outputs + column + shift * 8);
}

// What two columns have added: a pair, then what goes with it.
template <typename T, int FINISH, int COLUMNS> __device__ __forceinline__ float4 load_columns(uint32_t kept, int block) {
  const uint32_t from = kept + (block * 4 + threadIdx.x % 4) * 16;
  float4 own = {};
  if (FINISH & (NORMED | SPLIT))
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(own.x), "=f"(own.y), "=f"(own.z), "=f"(own.w) : "r"(from));
  else asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(own.x), "=f"(own.y) : "r"(from));
  if (FINISH & SHIFTED) {
    const float2 by = unpack<T>(load_shared(kept + COLUMNS * 8 + (block * 4 + threadIdx.x % 4) * 4));
    own.x += by.x;
    own.y += by.y;
  }
  return own;
}

// Row tile and first column of this block's tile of a round: through the rows of a band, then to its next columns, then to the
// next band. The blocks of a pair have neighbouring rows and the same columns.
template <int COLUMNS, bool PAIRS> __device__ __forceinline__ int2 tile_order(const Job& job, int round) {
  const int tile = (int)(blockIdx.x + round * gridDim.x) >> PAIRS, band = job.band >> PAIRS;
  const int whole = band * job.column_tiles, first = tile / whole * band, within = tile % whole;
  const int rows = min(band, (job.row_tiles >> PAIRS) - first);
  return {(first + within % rows) << PAIRS | (int)blockIdx.x & PAIRS, within / rows * COLUMNS};
}

// Whether this block has a tile in a round.
__device__ __forceinline__ bool has_tile(const Job& job, int round) {
  return (int)(blockIdx.x + round * gridDim.x) < job.row_tiles * job.column_tiles;
}

// Says that a group of warps has done with a stage. Of a pair two threads say it, each to one block, whose barrier is its `freed`.
template <bool PAIRS> __device__ __forceinline__ void stage_free(uint32_t freed) {
  if (threadIdx.x % 128 > PAIRS) return;
  if (PAIRS) barrier_arrive_there(freed);
  else barrier_arrive(freed);
}

// Where a tile lies: x, y, batch of its first pixel.
__device__ __forceinline__ int4 tile_place(const Job& job, int row_tile) {
  const int per_picture = job.wide * job.tall, within = row_tile % per_picture;
  return {0, within % job.wide * job.box_x, within / job.wide * job.box_y, row_tile / per_picture};
}

// Mean of a row's columns, and squares about it; four neighbouring lanes hold the row.
template <int N> __device__ __forceinline__ float2 measure(const float (&d)[N], int half) {
  float sum = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < N / 4; ++i) sum += d[i * 4 + half * 2] + d[i * 4 + half * 2 + 1];
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  const float mean = sum / (2 * N);
#pragma unroll
  for (int i = 0; i < N / 4; ++i) {
    const float left = d[i * 4 + half * 2] - mean, right = d[i * 4 + half * 2 + 1] - mean;
    squares += left * left + right * right;
  }
  squares += __shfl_xor_sync(~0u, squares, 1);
  squares += __shfl_xor_sync(~0u, squares, 2);
  return {mean, squares};
}

// A group's part of a tile.
struct Part {
  int first;  // its first row
  int4 at;    // that row's pixel: 0, x, y, picture
  int column; // its first column
};

// What a group of four warps does with its sums: a part of 64 rows goes through `staging` to the picture `y`.
template <typename T, int FINISH, int COLUMNS>
__device__ __forceinline__ void finish(float (&d)[COLUMNS / 2], const Job& job, const Besides& besides, const void* y,
                                       uint32_t staging, uint32_t kept, const Moments (&moments)[2], const Part& part) {
  constexpr int STEP = FINISH & GATED ? 2 : 1, LINE = line_of(FINISH), RUNS = LINE / 16;
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane / 4;
  // Where this thread's first number lies in a chunk: runs of 16 bytes of a line are shuffled as the copy engine does.
  const uint32_t place = staging + row * LINE + lane % 4 * 4, shuffle = row * LINE / 128 % RUNS * 16;
  float scale[2], offset[2];
  if (FINISH & NORMED) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 own = row_scale(moments[half], job.parts, job.depth * 64 / job.parts, job.eps);
      scale[half] = own.y;
      offset[half] = -own.x * own.y;
    }
  }
  float split[2]; // how often a row has what split rows have more
  if (FINISH & SPLIT) {
#pragma unroll
    for (int half = 0; half < 2; ++half) split[half] = part.first + row + 8 * half < job.split ? 0.0f : 1.0f;
  }
  constexpr int AHEAD = 4; // blocks of columns loaded ahead, before what those before store
  float4 next[AHEAD];
#pragma unroll
  for (int i = 0; i < AHEAD; ++i) next[i] = load_columns<T, FINISH, COLUMNS>(kept, i);
  const auto at = [&](int run, int half) { // where this thread's numbers of a run lie
    return place + run / RUNS * (64 * LINE) + half * (8 * LINE) + (run % RUNS * 16 ^ shuffle);
  };
  uint32_t more[2][2]; // what is added, two runs ahead
  if (FINISH & ADDED) {
#pragma unroll
    for (int i = 0; i < 4; ++i) more[i / 2][i % 2] = load_shared(at(i / 2, i % 2));
  }
#pragma unroll
  for (int run = 0; run < COLUMNS / 8 / STEP; ++run) {
    float2 value[2][STEP];
#pragma unroll
    for (int i = 0; i < STEP; ++i) {
      const int block = run * STEP + i;
      float4& own = next[block % AHEAD];
      const float2 bias = {own.x, own.y}, sums = {own.z, own.w};
      if (block + AHEAD < COLUMNS / 8) own = load_columns<T, FINISH, COLUMNS>(kept, block + AHEAD);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 sum = {d[block * 4 + half * 2], d[block * 4 + half * 2 + 1]};
        if (FINISH & NORMED)
          value[half][i] = {fmaf(scale[half], sum.x, fmaf(offset[half], sums.x, bias.x)),
                            fmaf(scale[half], sum.y, fmaf(offset[half], sums.y, bias.y))};
        else if (FINISH & SPLIT)
          value[half][i] = {sum.x + fmaf(split[half], sums.x, bias.x), sum.y + fmaf(split[half], sums.y, bias.y)};
        else value[half][i] = {sum.x + bias.x, sum.y + bias.y};
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float2 made = value[half][0];
      if (FINISH & GATED) {
        made.x *= gelu_near(value[half][STEP - 1].x);
        made.y *= gelu_near(value[half][STEP - 1].y);
      }
      if (FINISH & ADDED) {
        const float2 by = unpack<T>(more[run % 2][half]);
        made.x += by.x;
        made.y += by.y;
        if (run + 2 < COLUMNS / 8 / STEP) more[run % 2][half] = load_shared(at(run + 2, half));
      }
      const uint32_t both = pack<T>(made.x, made.y);
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(at(run, half)), "r"(both));
      if (FINISH & MEASURED) {
        const float2 stored = unpack<T>(both);
        d[run * 4 + half * 2] = stored.x;
        d[run * 4 + half * 2 + 1] = stored.y;
      }
    }
    if (run % RUNS == RUNS - 1) {
      // A chunk is done: it is stored while the next one is made.
      writes_shown();
      asm volatile("bar.sync %0, 128;" ::"r"((int)threadIdx.x / 128) : "memory");
      const int chunk = run / RUNS;
      if (threadIdx.x % 128 == 0)
        store_picture(y, staging + chunk * 64 * LINE, {part.column / STEP + chunk * (LINE / 2), part.at.y, part.at.z, part.at.w});
    }
  }
  if (threadIdx.x % 128 == 0) stores_commit();
  if (FINISH & MEASURED) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int own = part.first + row + 8 * half;
      const float2 measured = measure(d, half);
      if (lane % 4 == 0 && own < job.rows)
        besides.moments_out[(size_t)own * job.column_tiles + part.column / COLUMNS] = measured;
    }
  }
}

// The moments of the rows of a part that a thread finishes.
__device__ __forceinline__ void load_part(Moments (&moments)[2], const Job& job, const Besides& besides, int first) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = min(first + (int)threadIdx.x / 32 % 4 * 16 + (int)threadIdx.x % 32 / 4 + 8 * half, job.rows - 1);
    moments[half] = load_moments(besides.moments + (size_t)row * job.parts, job.parts);
  }
}

// The second or first half of a tile's pixels begins here.
__device__ __forceinline__ int4 half_place(const Job& job, int4 at, int half) {
  if (job.box_y > 1) at.z += half * (job.box_y / 2);
  else at.y += half * (job.box_x / 2);
  return at;
}

// Fetches what is added to 64 rows.
template <int FINISH, int COLUMNS>
__device__ __forceinline__ void fetch_added(uint32_t to, const void* residual, uint32_t barrier, int4 at, int column) {
#pragma unroll
  for (int chunk = 0; chunk < chunks_of(COLUMNS); ++chunk)
    copy_picture(to + chunk * 64 * line_of(FINISH), residual, barrier,
                 {column + chunk * (line_of(FINISH) / 2), at.y, at.z, at.w});
}

// Fetches the weights of a stage; of a pair, each block a half for both.
template <int COLUMNS, bool PAIRS>
__device__ __forceinline__ void fetch_weights(uint32_t to, const void* weight, uint32_t barrier, int run, int column) {
  if (!PAIRS) return copy_weights(to, weight, barrier, run, column);
  const int first = cluster_rank() * (COLUMNS / 2);
  copy_weights_to_both(to + first * 128, weight, barrier, run, column + first);
}

// One thread fetches all stages of all tiles of this block. Weights are nobody's result: those of the first stages are fetched
// while the kernel before this one ends.
template <int COLUMNS, bool PAIRS>
__device__ __forceinline__ void fetch_tiles(const void* x, const void* weight, const Job& job, uint32_t tiles, uint32_t full,
                                            uint32_t free) {
  constexpr int STAGE_BYTES = stage_of(COLUMNS);
  const int bytes = STAGE_BYTES - (2 - job.groups) * (ROW_BYTES / 2); // of a stage, that are fetched
  const int ahead = min(STAGES, job.taps * job.depth);
  const int first_column = tile_order<COLUMNS, PAIRS>(job, 0).y;
  for (int stage = 0; stage < ahead; ++stage) {
    barrier_expect(full + 8 * stage, bytes);
    fetch_weights<COLUMNS, PAIRS>(tiles + stage * STAGE_BYTES + ROW_BYTES, weight, full + 8 * stage,
                                  stage / job.depth * job.channels + stage % job.depth * 64, first_column);
  }
  after_others();
  int stage = 0, turn = 1, done = 0;
  for (int round = 0; has_tile(job, round); ++round) {
    const int2 order = tile_order<COLUMNS, PAIRS>(job, round);
    const int4 at = tile_place(job, order.x);
    const int column = order.y;
    for (int tap = 0; tap < job.taps; ++tap) {
      const int column_x = at.y + job.tap_x + tap % job.tap_width, line = at.z + job.tap_y + tap / job.tap_width;
      for (int run = 0; run < job.depth; ++run, ++done) {
        const uint32_t to = tiles + stage * STAGE_BYTES, barrier = full + 8 * stage;
        if (done >= ahead) {
          barrier_wait(free + 8 * stage, turn);
          barrier_expect(barrier, bytes);
          fetch_weights<COLUMNS, PAIRS>(to + ROW_BYTES, weight, barrier, tap * job.channels + run * 64, column);
        }
        copy_picture(to, x, barrier, {run * 64, column_x, line, at.w});
        if (++stage == STAGES) stage = 0, turn ^= 1;
      }
    }
  }
}

// Groups take a half of each tile's rows, or one of them all of a tile half as high: for products of few tiles, each of which is
// finished as soon as can be.
template <typename T, int FINISH, int COLUMNS>
__device__ __forceinline__ void multiply_halves(const void* y, const void* residual, const Job& job, const Besides& besides,
                                                uint32_t tiles, uint32_t full, uint32_t free, uint32_t extra) {
  constexpr int STAGE_BYTES = stage_of(COLUMNS);
  const int half = common(threadIdx.x / 128) - 1, runs = common(job.taps * job.depth);
  if (half >= job.groups) return;
  const uint32_t staging = tiles + STAGES * stage_of(COLUMNS) + half * part_of(FINISH, COLUMNS);
  const uint32_t kept = tiles + STAGES * stage_of(COLUMNS) + 2 * part_of(FINISH, COLUMNS) + half * kept_of(COLUMNS);
  const uint64_t first_tile = tile_at(tiles);
  const bool speaks = threadIdx.x % 128 == 0;
  int stage = 0, turn = 0;
  float d[COLUMNS / 2];
  for (int round = 0; has_tile(job, round); ++round) {
    const int2 order = tile_order<COLUMNS, false>(job, round);
    const int row_tile = order.x, column = order.y;
    const int first = (row_tile * job.groups + half) * 64;
    const int4 at = half_place(job, tile_place(job, row_tile), half);
    Moments moments[2];
    if (FINISH & NORMED) load_part(moments, job, besides, first);
    fetch_columns<T, FINISH, COLUMNS>(kept, job, besides, at.w, column);
    int last = stage;
    for (int run = 0; run < runs; ++run) {
      const uint64_t rows = tile_behind(first_tile, stage * STAGE_BYTES), columns = tile_behind(rows, ROW_BYTES);
      barrier_wait(full + 8 * stage, turn);
      products_begin();
#pragma unroll
      for (int part = 0; part < 4; ++part)
        product_step<T>(d, tile_behind(rows, half * (ROW_BYTES / 2) + part * 32), tile_behind(columns, part * 32), part ? 1 : run);
      products_commit();
      // Late enough not to be in the way of the first tiles, early enough to be there when the products are.
      if (speaks && run == runs / 2) {
        stores_read();
        if (FINISH & ADDED) {
          barrier_expect(extra + 8 * half, part_of(FINISH, COLUMNS));
          fetch_added<FINISH, COLUMNS>(staging, residual, extra + 8 * half, at, column);
        }
      }
      products_wait<1>();
      if (run > 0) stage_free<false>(free + 8 * last);
      last = stage;
      if (++stage == STAGES) stage = 0, turn ^= 1;
    }
    products_wait<0>();
    pin(d);
    stage_free<false>(free + 8 * last);
    if (FINISH & ADDED) barrier_wait(extra + 8 * half, round & 1);
    runs_wait();
    asm volatile("bar.sync %0, 128;" ::"r"(half + 1) : "memory");
    finish<T, FINISH, COLUMNS>(d, job, besides, y, staging, kept, moments, {first, at, column});
  }
  if (speaks) stores_done();
}

// Groups take whole tiles by turns: while one finishes its tile, the other's products go on.
template <typename T, int FINISH, int COLUMNS, bool PAIRS>
__device__ __forceinline__ void multiply_turns(const void* y, const void* residual, const Job& job, const Besides& besides,
                                               uint32_t tiles, uint32_t full, uint32_t free, uint32_t extra) {
  constexpr int TURN = 2 * 128, STAGE_BYTES = stage_of(COLUMNS);
  const int group = common(threadIdx.x / 128) - 1, runs = common(job.taps * job.depth);
  const uint32_t staging = tiles + STAGES * stage_of(COLUMNS), emptied = extra + 8;
  const uint32_t kept = staging + 2 * part_of(FINISH, COLUMNS) + group * kept_of(COLUMNS);
  const uint64_t first_tile = tile_at(tiles);
  const bool speaks = threadIdx.x % 128 == 0;
  float d[2][COLUMNS / 2];
  if (group == 1) asm volatile("bar.arrive %0, %1;" ::"r"(3), "n"(TURN) : "memory");
  for (int round = group; has_tile(job, round); round += 2) {
    const int2 order = tile_order<COLUMNS, PAIRS>(job, round);
    const int row_tile = order.x, column = order.y;
    Moments moments[2][2];
    if (FINISH & NORMED) {
      load_part(moments[0], job, besides, row_tile * 128);
      load_part(moments[1], job, besides, row_tile * 128 + 64);
    }
    const int4 at = tile_place(job, row_tile);
    fetch_columns<T, FINISH, COLUMNS>(kept, job, besides, at.w, column);
    int stage = round * runs % STAGES, turn = round * runs / STAGES & 1, last = stage;
    asm volatile("bar.sync %0, %1;" ::"r"(3 + group), "n"(TURN) : "memory");
    for (int run = 0; run < runs; ++run) {
      const uint64_t rows = tile_behind(first_tile, stage * STAGE_BYTES), columns = tile_behind(rows, ROW_BYTES);
      barrier_wait(full + 8 * stage, turn);
      products_begin();
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const uint64_t right = tile_behind(columns, part * 32);
        product_step<T>(d[0], tile_behind(rows, part * 32), right, part ? 1 : run);
        product_step<T>(d[1], tile_behind(rows, ROW_BYTES / 2 + part * 32), right, part ? 1 : run);
      }
      products_commit();
      products_wait<1>();
      if (run > 0) stage_free<PAIRS>(free + 8 * last);
      last = stage;
      if (++stage == STAGES) stage = 0, turn ^= 1;
    }
    // The other's stages come next: it may only look at them now that those before are known to be full.
    asm volatile("bar.arrive %0, %1;" ::"r"(4 - group), "n"(TURN) : "memory");
    products_wait<0>();
    pin(d[0]);
    pin(d[1]);
    stage_free<PAIRS>(free + 8 * last);
    barrier_wait(emptied, round & 1 ^ 1);
    runs_wait();
    asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
    if (FINISH & ADDED) {
      if (speaks) {
        barrier_expect(extra, 2 * part_of(FINISH, COLUMNS));
        fetch_added<FINISH, COLUMNS>(staging, residual, extra, at, column);
        fetch_added<FINISH, COLUMNS>(staging + part_of(FINISH, COLUMNS), residual, extra, half_place(job, at, 1), column);
      }
      barrier_wait(extra, round & 1);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
      finish<T, FINISH, COLUMNS>(d[half], job, besides, y, staging + half * part_of(FINISH, COLUMNS), kept, moments[half],
                        {row_tile * 128 + half * 64, half_place(job, at, half), column});
    if (speaks) {
      stores_read();
      barrier_arrive(emptied);
    }
  }
  if (speaks) stores_done();
}
#endif

// x: [channels, width, height, batch] in boxes of 64 channels and a tile's pixels. weight: [taps * channels, outputs] in
// boxes of 64 and COLUMNS, half as many for pairs. y, residual: as x with the channels that are left, in boxes of 32 columns, 16 of
// a gated map, and half a tile's pixels. 384 threads.
template <typename T, int FINISH, bool TURNS, int COLUMNS, bool PAIRS>
__device__ void multiply(const void* x, const void* weight, const void* y, const void* residual, const Job& job,
                         const Besides& besides) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ unsigned char raw[];
  __shared__ uint64_t barriers[2 * STAGES + 2];
  const uint32_t tiles = common((shared_address(raw) + 1023) / 1024 * 1024);
  const uint32_t full = common(shared_address(barriers)), free = full + 8 * STAGES, extra = free + 8 * STAGES;
  if (threadIdx.x == 128) {
    map_near(x);
    map_near(y);
    if (FINISH & ADDED) map_near(residual);
  }
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; ++stage) {
      barrier_make(full + 8 * stage, 1);
      barrier_make(free + 8 * stage, (TURNS ? 1 : job.groups) << PAIRS);
    }
    barrier_make(extra, 1);
    barrier_make(extra + 8, 1);
    barriers_made();
  }
  if (PAIRS) cluster_sync();
  else __syncthreads();
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 0) fetch_tiles<COLUMNS, PAIRS>(x, weight, job, tiles, full, free);
    __syncwarp();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    after_others();
    const uint32_t freed = PAIRS ? in_block(free, threadIdx.x & 1) : free;
    if (TURNS) multiply_turns<T, FINISH, COLUMNS, PAIRS>(y, residual, job, besides, tiles, full, freed, extra);
    else multiply_halves<T, FINISH, COLUMNS>(y, residual, job, besides, tiles, full, freed, extra);
  }
  // Neither block of a pair goes while the other may still write to it.
  if (PAIRS) {
    __syncwarp();
    cluster_sync();
  }
#endif
}

#define MULTIPLY(name, T, FINISH, finish, ...)                                                               \
  extern "C" __global__ void __launch_bounds__(384, 1)                                                       \
      multiply_##finish##_##name(const __grid_constant__ Map x, const __grid_constant__ Map weight,          \
                                 const __grid_constant__ Map y, const __grid_constant__ Map residual,        \
                                 const __grid_constant__ Job job, const __grid_constant__ Besides besides) { \
    multiply<T, FINISH, __VA_ARGS__>(&x, &weight, &y, &residual, job, besides);                              \
  }
// With whether groups take tiles by turns, a tile's columns, and whether blocks work in pairs.
#define MULTIPLY_TYPES(FINISH, finish, ...)          \
  MULTIPLY(f16, __half, FINISH, finish, __VA_ARGS__) \
  MULTIPLY(bf16, __nv_bfloat16, FINISH, finish, __VA_ARGS__)
#define MULTIPLY_HALVES(FINISH, finish) MULTIPLY_TYPES(FINISH, finish##_halves, false, 160, false)
#define MULTIPLY_TURNS(FINISH, finish)                     \
  MULTIPLY_TYPES(FINISH, finish##_turns, true, 160, false) \
  MULTIPLY_TYPES(FINISH, finish##_pairs, true, 160, true)
#define MULTIPLY_WAYS(FINISH, finish) \
  MULTIPLY_HALVES(FINISH, finish)     \
  MULTIPLY_TURNS(FINISH, finish)
MULTIPLY_WAYS(0, plain)
MULTIPLY_WAYS(NORMED, normed)
MULTIPLY_HALVES(SHIFTED, shifted)
MULTIPLY_WAYS(ADDED, added)
MULTIPLY_WAYS(MEASURED, measured)
MULTIPLY_WAYS(ADDED | MEASURED | SPLIT, added_measured)
MULTIPLY_TURNS(GATED, gated)
MULTIPLY_TURNS(GATED | NORMED, normed_gated)
MULTIPLY_TYPES(0, narrow_turns, true, 128, false)
