// Vectors of as many floats as a register holds, and reading float32, bfloat16 and int8 into them.

#pragma once

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int WIDE_ROWS = LANES == 16 ? 8 : 4;    // weight rows at a time for one row of x: sums fill the registers
constexpr int NARROW_ROWS = LANES == 16 ? 4 : 2;  // the same for several rows of x
constexpr int TILE = 4;                           // rows of x at a time
constexpr int BLOCK = 8;                          // weight rows are handed out in multiples of this

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t bfloat16;

inline Floats all(float value) { return value - Floats{}; }

inline Floats load(const float* p) {
  Floats v;
  memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, Floats v) { memcpy(p, &v, sizeof v); }

inline Floats load(const bfloat16* p) {
#if defined(__AVX512F__)
  return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
#elif defined(__AVX2__)
  return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16);
#else
  typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
  Halves h;
  memcpy(&h, p, sizeof h);
  return (Floats)(__builtin_convertvector(h, Words) << 16);
#endif
}

inline Floats load(const int8_t* p) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
#elif defined(__AVX2__)
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
  typedef int8_t Bytes __attribute__((vector_size(LANES)));
  Bytes b;
  memcpy(&b, p, sizeof b);
  return __builtin_convertvector(b, Floats);
#endif
}

template <class T>
inline Floats load_first(const T* p, int64_t count) {
  T padded[LANES] = {};
  memcpy(padded, p, sizeof(T) * count);
  return load(padded);
}

inline float sum(Floats v) {
  float lanes[LANES];
  memcpy(lanes, &v, sizeof v);
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}

inline bfloat16 narrowed(float value) {  // to the nearest, ties to even
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bfloat16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float widened(float value) { return value; }
inline float widened(bfloat16 value) {
  uint32_t bits = uint32_t(value) << 16;
  float wide;
  memcpy(&wide, &bits, 4);
  return wide;
}

inline void put(float* p, float value) { *p = value; }
inline void put(bfloat16* p, float value) { *p = narrowed(value); }

// e^x for x in [-87, 88], clamped to it; Cody and Waite's reduction, relative error below 2e-7.
inline Floats exponential(Floats x) {
  x = x < all(-87.0f) ? all(-87.0f) : x;
  x = x > all(88.0f) ? all(88.0f) : x;
  const Floats magic = all(12582912.0f);  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  Floats shifted = x * all(1.44269504f) + magic, n = shifted - magic;
  Floats r = x - n * all(0.693359375f) + n * all(2.12194440e-4f);
  Floats p = all(1.9875691500e-4f);
  p = p * r + all(1.3981999507e-3f);
  p = p * r + all(8.3334519073e-3f);
  p = p * r + all(4.1665795894e-2f);
  p = p * r + all(1.6666665459e-1f);
  p = p * r + all(5.0000001201e-1f);
  p = p * r * r + r + all(1.0f);
  return (Floats)((Ints)p + ((Ints)shifted << 23));
}

inline Floats silu(Floats x) { return x / (all(1.0f) + exponential(-x)); }
