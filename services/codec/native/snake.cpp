// The snake activation x + sin²(αx)/β in one pass over memory, written straight behind a convolution's past:
//
//   out  [ past | x + sin²(αx)/β ]        kept = the last columns of out
//          columns   length
//
// sin² has period π: y = kπ + r with r in [-π/2, π/2], π in three parts of which k times the first two are exact up to
// |k| = 2^13, then an odd polynomial of degree 9 (fitted to sin on that interval for the least largest error, 5e-9).
// Plain C at its edge; services/codec/native/snake.py hands tensors over.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr float INVERSE_PI = 0.318309886183790672f;
constexpr float PI_1 = 0x1.92p+1f, PI_2 = 0x1.fb4p-11f, PI_3 = 0x1.4442d2p-23f;
constexpr float HALF_PI = 1.57079632679489662f;
constexpr float C3 = -0.16666656732559204f, C5 = 0.008333017118275166f, C7 = -0.00019806614727713168f,
                C9 = 2.600054585855105e-06f;

inline float sine_squared(float y) {
  const float k = std::nearbyint(y * INVERSE_PI);
  float r = ((y - k * PI_1) - k * PI_2) - k * PI_3;
  r = std::min(std::max(r, -HALF_PI), HALF_PI);  // where k is no longer exact: wrong by the rounding of y, never beyond 1
  const float square = r * r;
  const float s = r + r * square * (C3 + square * (C5 + square * (C7 + square * C9)));
  return s * s;
}

void activate(const float* __restrict x, const float* __restrict alpha, const float* __restrict inverse_beta,
              int64_t channels, float* __restrict out) {
  for (int64_t c = 0; c < channels; c++) out[c] = x[c] + sine_squared(x[c] * alpha[c]) * inverse_beta[c];
}

}  // namespace

// x [rows, length, channels] and out [rows, columns + length, channels] as they lie; past and kept [rows, columns,
// channels] with a stride between rows.
extern "C" void voicemesh_snake(const float* x, const float* alpha, const float* inverse_beta, const float* past,
                                int64_t past_stride, float* kept, int64_t kept_stride, int64_t rows, int64_t length,
                                int64_t channels, int64_t columns, float* out) {
  const int64_t remembered = columns * channels;
  for (int64_t row = 0; row < rows; row++) {
    std::memcpy(out, past + row * past_stride, remembered * sizeof(float));
    for (int64_t at = 0; at < length; at++)
      activate(x + at * channels, alpha, inverse_beta, channels, out + remembered + at * channels);
    std::memcpy(kept + row * kept_stride, out + length * channels, remembered * sizeof(float));
    x += length * channels;
    out += remembered + length * channels;
  }
}
