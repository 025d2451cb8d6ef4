// Rows times a matrix that is read once, in order, and converted in registers; activations are float32.
//
// A row's sums are taken in one order whatever the number of rows, so that its bits never depend on its company.

#pragma once

#include <algorithm>

#include "crew.hpp"
#include "vectors.hpp"

enum Kind : int32_t { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

struct Matrix {  // [rows, columns], row-major; `scales` [rows] for int8
  const void* weights;
  const float* scales;
  int64_t rows, columns, kind;
};

template <class T>
constexpr int64_t AHEAD = sizeof(T) == 4 ? 4096 : 8192;  // bytes to fetch ahead: 46 GB/s of int8 instead of 15

template <class T, int R, int M>
inline void tile(const T* w, int64_t columns, const float* x, int64_t stride, float* out) {
  Floats sums[R][M] = {};
  int64_t k = 0;
  for (; k + LANES <= columns; k += LANES) {
    Floats xs[M];
    for (int m = 0; m < M; m++) xs[m] = load(x + m * stride + k);
    for (int r = 0; r < R; r++) {
      const T* at = w + r * columns + k;
      if (k * sizeof(T) % 64 == 0) __builtin_prefetch((const char*)at + AHEAD<T>);
      Floats weight = load(at);
      for (int m = 0; m < M; m++) sums[r][m] += weight * xs[m];
    }
  }
  if (k < columns)
    for (int r = 0; r < R; r++)
      for (int m = 0; m < M; m++)
        sums[r][m] += load_first(w + r * columns + k, columns - k) * load_first(x + m * stride + k, columns - k);
  for (int r = 0; r < R; r++)
    for (int m = 0; m < M; m++) out[r * TILE + m] = sum(sums[r][m]);
}

template <class T, int R>
inline void tiles(const T* w, int64_t columns, const float* x, int64_t stride, int count, float* out) {
  for (int r = 0; r < BLOCK; r += R, w += R * columns, out += R * TILE) {
    if (count == 1) tile<T, R, 1>(w, columns, x, stride, out);
    else if (count == 2) tile<T, R, 2>(w, columns, x, stride, out);
    else if (count == 3) tile<T, R, 3>(w, columns, x, stride, out);
    else tile<T, R, 4>(w, columns, x, stride, out);
  }
}

// Weight rows [first, first + size) times up to TILE rows of x: out[BLOCK][TILE].
template <class T>
void block(const Matrix& m, int64_t first, int64_t size, const float* x, int64_t stride, int count, float* out) {
  const T* w = static_cast<const T*>(m.weights) + first * m.columns;
  if (size < BLOCK) {
    for (int64_t r = 0; r < size; r++)
      for (int i = 0; i < count; i++)
        tile<T, 1, 1>(w + r * m.columns, m.columns, x + i * stride, stride, out + r * TILE + i);
  } else if (count == 1) {
    tiles<T, WIDE_ROWS>(w, m.columns, x, stride, count, out);
  } else {
    tiles<T, NARROW_ROWS>(w, m.columns, x, stride, count, out);
  }
  if (m.scales)
    for (int64_t r = 0; r < size; r++)
      for (int i = 0; i < count; i++) out[r * TILE + i] *= m.scales[first + r];
}

inline void any_block(const Matrix& m, int64_t first, int64_t size, const float* x, int64_t stride, int count,
                      float* out) {
  if (m.kind == FLOAT32) block<float>(m, first, size, x, stride, count, out);
  else if (m.kind == BFLOAT16) block<bfloat16>(m, first, size, x, stride, count, out);
  else block<int8_t>(m, first, size, x, stride, count, out);
}

constexpr int64_t SERIAL_PRODUCT = 1 << 18;  // multiplications below which a second thread is not worth waking
constexpr int64_t CHUNK_BYTES = 1 << 17;

// Calls each(first row, size) for blocks of the output, over all threads where the work is worth it.
template <class F>
void over_blocks(int64_t outputs, const Matrix& m, int64_t count, F&& each) {
  const int64_t row_bytes = m.columns * (m.kind == FLOAT32 ? 4 : m.kind == BFLOAT16 ? 2 : 1);
  int64_t chunk = outputs;
  if (outputs * m.columns * count >= SERIAL_PRODUCT && crew.count() > 1) {
    int64_t share = outputs / (4 * crew.count()), affordable = CHUNK_BYTES / row_bytes;
    chunk = (std::max<int64_t>(std::min(share, affordable), 1) + BLOCK - 1) / BLOCK * BLOCK;
  }
  in_parallel((outputs + chunk - 1) / chunk, [&](int64_t i) {
    for (int64_t o = i * chunk; o < std::min(outputs, (i + 1) * chunk); o += BLOCK)
      each(o, std::min<int64_t>(BLOCK, outputs - o));
  });
}

// out [count, rows] (+)= x [count, columns] times the matrix.
inline void product(const Matrix& m, const float* x, int64_t stride, int64_t count, float* out, int64_t out_stride,
                    bool add) {
  over_blocks(m.rows, m, count, [&](int64_t first, int64_t size) {
    float values[BLOCK * TILE];
    for (int64_t row = 0; row < count; row += TILE) {
      const int rows = int(std::min<int64_t>(TILE, count - row));
      any_block(m, first, size, x + row * stride, stride, rows, values);
      for (int i = 0; i < rows; i++)
        for (int64_t r = 0; r < size; r++) {
          float& place = out[(row + i) * out_stride + first + r];
          place = add ? place + values[r * TILE + i] : values[r * TILE + i];
        }
    }
  });
}

// out [count, F] = silu(gate) * up, the matrix holding the F rows of gate and then those of up.
inline void gated_product(const Matrix& m, const float* x, int64_t stride, int64_t count, float* out) {
  const int64_t inner = m.rows / 2;
  over_blocks(inner, m, 2 * count, [&](int64_t first, int64_t size) {
    alignas(64) float gate[BLOCK * TILE] = {}, up[BLOCK * TILE] = {};
    for (int64_t row = 0; row < count; row += TILE) {
      const int rows = int(std::min<int64_t>(TILE, count - row));
      any_block(m, first, size, x + row * stride, stride, rows, gate);
      any_block(m, inner + first, size, x + row * stride, stride, rows, up);
      for (int i = 0; i < BLOCK * TILE; i += LANES) store(gate + i, silu(load(gate + i)) * load(up + i));
      for (int i = 0; i < rows; i++)
        for (int64_t r = 0; r < size; r++) out[(row + i) * inner + first + r] = gate[r * TILE + i];
    }
  });
}
