/* Vectors of 16 floats: AVX-512 (F, BW, DQ, VL). */
#include <immintrin.h>

#define LANES 16
#define TILE_ROWS 8
#define TILE_VECTORS 3

typedef __m512 vf;
typedef __m512i vi;

#define v_load(p) _mm512_loadu_ps(p)
#define v_store(p, v) _mm512_storeu_ps(p, v)
#define v_set1 _mm512_set1_ps
#define v_zero _mm512_setzero_ps
#define v_add _mm512_add_ps
#define v_sub _mm512_sub_ps
#define v_mul _mm512_mul_ps
#define v_div _mm512_div_ps
#define v_max _mm512_max_ps /* the second where one is not a number, as v_min */
#define v_min _mm512_min_ps
#define v_fma _mm512_fmadd_ps /* a * b + c, rounded once */
#define v_sqrt _mm512_sqrt_ps
#define v_round(v) _mm512_roundscale_ps(v, 8)

#define vi_zero _mm512_setzero_si512
#define vi_load(p) _mm512_loadu_si512((const void *)(p))
#define vi_store(p, v) _mm512_storeu_si512((void *)(p), v)
#define vi_set1 _mm512_set1_epi32
#define vi_add _mm512_add_epi32
#define vi_sub _mm512_sub_epi32
#define vi_mul _mm512_mullo_epi32
#define vi_from_float _mm512_cvtps_epi32
#define vi_to_float _mm512_cvtepi32_ps

INLINE __mmask16 lanes_below(int n) { return (__mmask16)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1); }
INLINE vf v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(lanes_below(n), p); }
INLINE void v_store_n(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, lanes_below(n), v); }

/* v in lanes from `first` to before `last`, `other` elsewhere. */
INLINE vf v_keep(vf v, int first, int last, vf other)
{
    return _mm512_mask_mov_ps(other, lanes_below(last) & (__mmask16)~lanes_below(first), v);
}

#define v_times_power_of_2 _mm512_scalef_ps /* v 2^n for whole numbers n */
#define LEAST_POWER -152.0f /* of a v near 1, which gives 0 */

/* Not by _mm512_reduce_max_ps and its like: built by clang, NaNs were lost with them. */
#define REDUCE_16(NAME, F)                                                                             \
    INLINE float NAME(vf v)                                                                            \
    {                                                                                                  \
        const __m256 b = _mm256_##F##_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));     \
        __m128 a = _mm_##F##_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));               \
        a = _mm_##F##_ps(a, _mm_movehl_ps(a, a));                                                      \
        return _mm_cvtss_f32(_mm_##F##_ss(a, _mm_movehdup_ps(a)));                                     \
    }
REDUCE_16(v_sum, add)
REDUCE_16(v_largest, max)
REDUCE_16(v_smallest, min)

INLINE vf v_load_b16(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

/* LANES rows of LANES 4-byte numbers, `stride` bytes apart, to rows that were columns. */
INLINE void v_transpose(const char *rows, size_t stride, float *out)
{
    __m512i r[16], t[16];
    UNROLL for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(rows + (size_t)i * stride);
    UNROLL for (int i = 0; i < 8; i++)
    {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) for (int j = 0; j < 2; j++)
    {
        r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
        r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
    }
    UNROLL for (int i = 0; i < 4; i++) for (int j = 0; j < 16; j += 8)
    {
        t[j + i] = _mm512_shuffle_i32x4(r[j + i], r[j + i + 4], 0x88);
        t[j + i + 4] = _mm512_shuffle_i32x4(r[j + i], r[j + i + 4], 0xdd);
    }
    UNROLL for (int i = 0; i < 8; i++)
    {
        _mm512_storeu_si512(out + 16 * i, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
        _mm512_storeu_si512(out + 16 * (i + 8), _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
    }
}

/* The nearest numbers from 0 to 255, or from -32768 to 32767. */
INLINE void vi_store_u8(uint8_t *p, vi v)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtusepi32_epi8(_mm512_max_epi32(v, _mm512_setzero_si512())));
}
INLINE void vi_store_i16(int16_t *p, vi v) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtsepi32_epi16(v)); }

#ifdef __AVX512BF16__
#define HAS_BF16 1
/* bfloat16 numbers in the lower halves of the lanes. */
INLINE vi v_to_b16(vf v) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(v)); }
INLINE void v_store_b16(uint16_t *p, vf v) { _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(v)); }
/* Pairs of bfloat16 numbers: of each lane the one of `low`, then the one of `high`. */
INLINE vi v_pairs_b16(vf low, vf high)
{
    return _mm512_or_si512(v_to_b16(low), _mm512_slli_epi32(v_to_b16(high), 16));
}
/* The same of two rows of them. */
#define v_pairs_of_b16(low, high)                                                                          \
    _mm512_or_si512(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(low))),                     \
                    _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(high))), 16))
#define DOT_BF16(c, a, b) _mm512_dpbf16_ps(c, (__m512bh)(a), (__m512bh)(b))
#endif

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define HAS_AMX 1
#endif
