// One id from one row of logits, as services/tts_lm/model/sampling.py draws it: temperature, top-k keeping ties, then
// the first id whose cumulative probability exceeds the draw, summed in id order in double. Knows no top-p.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

namespace {

struct Sampling {  // per row of a batch
  const uint8_t* greedy;
  const float* temperatures;
  const int64_t* top_ks;  // 0: all
  const double* uniforms;
  int64_t uniform_stride;
};

inline int64_t draw(const float* logits, int64_t size, const Sampling& how, int64_t row, int64_t codebook) {
  if (how.greedy[row]) return std::max_element(logits, logits + size) - logits;
  thread_local std::vector<float> scores, ordered;
  thread_local std::vector<double> weights;
  scores.assign(logits, logits + size);
  for (float& score : scores) score /= how.temperatures[row];
  const float most = *std::max_element(scores.begin(), scores.end());
  float least = -INFINITY;
  if (const int64_t k = how.top_ks[row]; k > 0 && k < size) {
    ordered = scores;
    std::nth_element(ordered.begin(), ordered.begin() + (k - 1), ordered.end(), std::greater<float>());
    least = ordered[k - 1];
  }
  weights.assign(size, 0.0);
  double total = 0;
  for (int64_t i = 0; i < size; i++)
    if (scores[i] >= least) total += weights[i] = std::exp(double(scores[i] - most));
  const double target = how.uniforms[row * how.uniform_stride + codebook] * total;
  double passed = 0;
  for (int64_t i = 0; i < size; i++)
    if ((passed += weights[i]) > target) return i;
  return size - 1;
}

}  // namespace
