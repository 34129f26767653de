/* Vectors of 8 floats: AVX2 with FMA (x86-64-v3). */
#include <immintrin.h>

#define LANES 8
#define TILE_ROWS 6
#define TILE_VECTORS 2

typedef __m256 vf;
typedef __m256i vi;

#define v_load(p) _mm256_loadu_ps(p)
#define v_store(p, v) _mm256_storeu_ps(p, v)
#define v_set1 _mm256_set1_ps
#define v_zero _mm256_setzero_ps
#define v_add _mm256_add_ps
#define v_sub _mm256_sub_ps
#define v_mul _mm256_mul_ps
#define v_div _mm256_div_ps
#define v_max _mm256_max_ps /* the second where one is not a number, as v_min */
#define v_min _mm256_min_ps
#define v_fma _mm256_fmadd_ps /* a * b + c, rounded once */
#define v_sqrt _mm256_sqrt_ps
#define v_round(v) _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)

#define vi_zero _mm256_setzero_si256
#define vi_load(p) _mm256_loadu_si256((const __m256i *)(p))
#define vi_store(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define vi_set1 _mm256_set1_epi32
#define vi_add _mm256_add_epi32
#define vi_sub _mm256_sub_epi32
#define vi_mul _mm256_mullo_epi32
#define vi_from_float _mm256_cvtps_epi32
#define vi_to_float _mm256_cvtepi32_ps

INLINE vi lanes_below(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE vf v_load_n(const float *p, int n) { return _mm256_maskload_ps(p, lanes_below(n)); }
INLINE void v_store_n(float *p, vf v, int n) { _mm256_maskstore_ps(p, lanes_below(n), v); }

/* v in lanes from `first` to before `last`, `other` elsewhere. */
INLINE vf v_keep(vf v, int first, int last, vf other)
{
    return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(_mm256_andnot_si256(lanes_below(first), lanes_below(last))));
}

#define LEAST_POWER -127.0f
/* v 2^n for whole numbers n from LEAST_POWER (gives 0) to 127. */
INLINE vf v_times_power_of_2(vf v, vf n)
{
    __m256i exponents = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(v, _mm256_castsi256_ps(exponents));
}

#define REDUCE_8(NAME, F)                                                              \
    INLINE float NAME(vf v)                                                            \
    {                                                                                  \
        __m128 a = _mm_##F##_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); \
        a = _mm_##F##_ps(a, _mm_movehl_ps(a, a));                                      \
        return _mm_cvtss_f32(_mm_##F##_ss(a, _mm_movehdup_ps(a)));                     \
    }
REDUCE_8(v_sum, add)
REDUCE_8(v_largest, max)
REDUCE_8(v_smallest, min)

INLINE vf v_load_b16(const uint16_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}

/* LANES rows of LANES 4-byte numbers, `stride` bytes apart, to rows that were columns. */
INLINE void v_transpose(const char *rows, size_t stride, float *out)
{
    __m256 r[8], t[8];
    UNROLL for (int i = 0; i < 8; i++) r[i] = v_load((const float *)(rows + (size_t)i * stride));
    UNROLL for (int i = 0; i < 8; i += 2)
    {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4)
    {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        v_store(out + 8 * i, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        v_store(out + 8 * (i + 4), _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

/* The nearest numbers from 0 to 255, or from -32768 to 32767. */
INLINE void vi_store_i16(int16_t *p, vi v)
{
    __m256i pairs = _mm256_permute4x64_epi64(_mm256_packs_epi32(v, v), 0x08);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(pairs));
}
INLINE void vi_store_u8(uint8_t *p, vi v)
{
    __m128i pairs = _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packs_epi32(v, v), 0x08));
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(pairs, pairs));
}
