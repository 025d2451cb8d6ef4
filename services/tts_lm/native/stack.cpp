// One pass of a stack of Qwen3 layers on a CPU, over weights as they lie in the checkpoint: rows in, rows out.
//
// At batch 1 a frame is a matter of reading every weight once from memory: so products read weights in order, and what
// comes between two of them runs in the same call. Knows no sequences: where a row's keys and values lie comes in a
// `Batch`. Plain C at its edge; services/tts_lm/native/library.py mirrors its structures.

#include <cmath>
#include <vector>

#include "products.hpp"
#include "sampling.hpp"

namespace {

struct Layer {
  const float *attention_norm, *qk_norm, *mlp_norm;  // [H], [h + g, D], [H]
  Matrix qkv, output, gate_up, down;
};

struct Stack {  // h heads, g kv heads, head size D; rotary tables [positions, D / 2]
  const Layer* layers;
  const float *norm, *cosines, *sines;
  int64_t layer_count, width, inner, heads, kv_heads, head_size;
  double eps;
};

struct Batch {  // per row: rotary position, pool position it is written to, how many positions it sees, where they are
  int64_t rows;
  const int64_t *positions, *targets, *lengths, *starts;
  const int64_t* const* tables;  // null entries: positions follow one another from `starts`
  void* memory;                  // [layers, 2, capacity, g, D]
  int64_t capacity, kind;        // kind of the memory: FLOAT32 or BFLOAT16
};

void normalise(const float* x, const float* weight, int64_t size, double eps, float* out) {
  Floats squares = {};
  int64_t i = 0;
  for (; i + LANES <= size; i += LANES) squares += load(x + i) * load(x + i);
  float total = sum(squares);
  for (; i < size; i++) total += x[i] * x[i];
  const float factor = 1.0f / std::sqrt(total / float(size) + float(eps));
  for (i = 0; i + LANES <= size; i += LANES) store(out + i, load(x + i) * factor * load(weight + i));
  for (; i < size; i++) out[i] = x[i] * factor * weight[i];
}

void rotate(float* x, const float* cosines, const float* sines, int64_t half) {
  for (int64_t i = 0; i < half; i++) {
    const float a = x[i], b = x[half + i];
    x[i] = a * cosines[i] - b * sines[i];
    x[half + i] = b * cosines[i] + a * sines[i];
  }
}

// One row, one kv head: its `group` queries over `length` positions. N vectors make a head.
template <class T, int N>
void attend(const float* q, int64_t group, const T* keys, const T* values, int64_t stride, const int64_t* table,
            int64_t start, int64_t length, float scale, float* out) {
  thread_local std::vector<float> scores;
  scores.resize((length + LANES - 1) / LANES * LANES);
  auto place = [&](int64_t j) { return (table ? table[j] : start + j) * stride; };
  for (int64_t g = 0; g < group; g++, q += N * LANES, out += N * LANES) {
    Floats query[N];
    for (int n = 0; n < N; n++) query[n] = load(q + n * LANES);
    float most = -INFINITY;
    for (int64_t j = 0; j < length; j++) {
      const T* key = keys + place(j);
      Floats dot = {};
      for (int n = 0; n < N; n++) dot += query[n] * load(key + n * LANES);
      scores[j] = sum(dot) * scale;
      most = std::max(most, scores[j]);
    }
    for (size_t j = length; j < scores.size(); j++) scores[j] = -INFINITY;
    float total = 0;
    for (size_t j = 0; j < scores.size(); j += LANES) store(&scores[j], exponential(load(&scores[j]) - most));
    for (int64_t j = 0; j < length; j++) total += scores[j];
    Floats sums[N] = {};
    for (int64_t j = 0; j < length; j++) {
      const T* value = values + place(j);
      for (int n = 0; n < N; n++) sums[n] += scores[j] * load(value + n * LANES);
    }
    for (int n = 0; n < N; n++) store(out + n * LANES, sums[n] * (1.0f / total));
  }
}

template <class T>
void attention(const Stack& s, const Batch& b, int64_t layer, float* qkv, int64_t qkv_stride, float* out) {
  const int64_t size = s.head_size, both = s.heads + s.kv_heads, group = s.heads / s.kv_heads;
  const int64_t position = s.kv_heads * size;
  T* keys = static_cast<T*>(b.memory) + 2 * layer * b.capacity * position;
  T* values = keys + b.capacity * position;
  int64_t seen = 0;
  for (int64_t r = 0; r < b.rows; r++) {
    float* row = qkv + r * qkv_stride;
    for (int64_t head = 0; head < both; head++) {
      normalise(row + head * size, s.layers[layer].qk_norm + head * size, size, s.eps, row + head * size);
      rotate(row + head * size, s.cosines + b.positions[r] * size / 2, s.sines + b.positions[r] * size / 2, size / 2);
    }
    for (int64_t i = 0; i < position; i++) {
      put(keys + b.targets[r] * position + i, row[s.heads * size + i]);
      put(values + b.targets[r] * position + i, row[both * size + i]);
    }
    seen += b.lengths[r];
  }
  const float scale = 1.0f / std::sqrt(float(size));
  auto one = [&](int64_t task) {
    const int64_t r = task / s.kv_heads, head = task % s.kv_heads;
    const float* q = qkv + r * qkv_stride + head * group * size;
    float* to = out + r * s.heads * size + head * group * size;
    const T *k = keys + head * size, *v = values + head * size;
    const int64_t* table = b.tables[r];
    switch (size / LANES) {
      case 1: return attend<T, 1>(q, group, k, v, position, table, b.starts[r], b.lengths[r], scale, to);
      case 2: return attend<T, 2>(q, group, k, v, position, table, b.starts[r], b.lengths[r], scale, to);
      case 4: return attend<T, 4>(q, group, k, v, position, table, b.starts[r], b.lengths[r], scale, to);
      case 8: return attend<T, 8>(q, group, k, v, position, table, b.starts[r], b.lengths[r], scale, to);
      case 16: return attend<T, 16>(q, group, k, v, position, table, b.starts[r], b.lengths[r], scale, to);
      case 32: return attend<T, 32>(q, group, k, v, position, table, b.starts[r], b.lengths[r], scale, to);
    }
  };
  const int64_t tasks = b.rows * s.kv_heads;
  if (2 * seen * s.heads * size >= SERIAL_PRODUCT) in_parallel(tasks, one);
  else
    for (int64_t i = 0; i < tasks; i++) one(i);
}

}  // namespace

extern "C" {

int voicemesh_lanes() { return LANES; }

void voicemesh_threads(int count) { crew.hire(count); }

void voicemesh_product(const Matrix* m, const float* x, int64_t count, float* out) {
  product(*m, x, m->columns, count, out, m->rows, false);
}

// x [rows, H] is overwritten; out [rows, H] is the last norm of it.
void voicemesh_stack(const Stack* stack, const Batch* batch, float* x, float* out) {
  const Stack& s = *stack;
  const int64_t rows = batch->rows, width = s.width, heads = s.heads * s.head_size;
  const int64_t qkv = heads + 2 * s.kv_heads * s.head_size;
  thread_local std::vector<float> memory;
  memory.resize(rows * (width + qkv + heads + s.inner));
  float *normed = memory.data(), *projected = normed + rows * width;
  float *attended = projected + rows * qkv, *inner = attended + rows * heads;
  for (int64_t l = 0; l < s.layer_count; l++) {
    const Layer& layer = s.layers[l];
    for (int64_t r = 0; r < rows; r++) normalise(x + r * width, layer.attention_norm, width, s.eps, normed + r * width);
    product(layer.qkv, normed, width, rows, projected, qkv, false);
    if (batch->kind == FLOAT32) attention<float>(s, *batch, l, projected, qkv, attended);
    else attention<bfloat16>(s, *batch, l, projected, qkv, attended);
    product(layer.output, attended, heads, rows, x, width, true);
    for (int64_t r = 0; r < rows; r++) normalise(x + r * width, layer.mlp_norm, width, s.eps, normed + r * width);
    gated_product(layer.gate_up, normed, width, rows, inner);
    product(layer.down, inner, s.inner, rows, x, width, true);
  }
  for (int64_t r = 0; r < rows; r++) normalise(x + r * width, s.norm, width, s.eps, out + r * width);
}

struct Predictor {  // Q codebooks; the table holds what each code is to the stack
  const Stack* stack;
  const Matrix* heads;  // [Q - 1]
  Matrix table;         // [rows, H]
  const int64_t* offsets;  // [Q], where in the table a codebook begins
  int64_t codebooks;
};

// All passes of one frame: `hidden` [S, H], `codes` [S, Q] with code 0 given, `batches` [Q - 1], the first of which has
// two rows for each slot.
void voicemesh_predict(const Predictor* predictor, const Batch* batches, const Sampling* how, int64_t slots,
                       const float* hidden, int64_t* codes) {
  const Predictor& p = *predictor;
  const int64_t width = p.stack->width, last = p.codebooks - 1;
  thread_local std::vector<float> memory;
  memory.resize(4 * slots * width + slots * p.heads[0].rows);
  float *x = memory.data(), *out = x + 2 * slots * width, *logits = out + 2 * slots * width;
  auto look_up = [&](int64_t codebook, int64_t slot, float* to) {
    const int64_t at = (p.offsets[codebook] + codes[slot * p.codebooks + codebook]) * width;
    for (int64_t i = 0; i < width; i++)
      to[i] = p.table.kind == FLOAT32 ? static_cast<const float*>(p.table.weights)[at + i]
                                      : widened(static_cast<const bfloat16*>(p.table.weights)[at + i]);
  };
  for (int64_t slot = 0; slot < slots; slot++) {
    memcpy(x + 2 * slot * width, hidden + slot * width, sizeof(float) * width);
    look_up(0, slot, x + (2 * slot + 1) * width);
  }
  for (int64_t codebook = 1; codebook <= last; codebook++) {
    const int64_t each = codebook == 1 ? 2 : 1;  // rows per slot; the last of them is the one that speaks
    voicemesh_stack(p.stack, &batches[codebook - 1], x, out);
    const Matrix& head = p.heads[codebook - 1];
    const int64_t size = head.rows;
    product(head, out + (each - 1) * width, each * width, slots, logits, size, false);
    for (int64_t slot = 0; slot < slots; slot++) {
      codes[slot * p.codebooks + codebook] = draw(logits + slot * size, size, *how, slot, codebook);
      if (codebook < last) look_up(codebook, slot, x + slot * width);
    }
  }
}

}  // extern "C"
