/* Vectors of 4 floats: NEON (AArch64), with the instructions for 8-bit integers and bfloat16 where the flags say so. */
#include <arm_neon.h>

#define LANES 4
#define TILE_ROWS 8
#define TILE_VECTORS 3
#define FETCH_VECTORS 1 /* a group of a panel is shorter than a cache line */

typedef float32x4_t vf;
typedef int32x4_t vi;

#define v_load(p) vld1q_f32(p)
#define v_store(p, v) vst1q_f32(p, v)
#define v_set1 vdupq_n_f32
#define v_zero() vdupq_n_f32(0)
#define v_add vaddq_f32
#define v_sub vsubq_f32
#define v_mul vmulq_f32
#define v_div vdivq_f32
#define v_max vmaxq_f32 /* not a number where one of them is not, as v_min */
#define v_min vminq_f32
#define v_fma(a, b, c) vfmaq_f32(c, a, b) /* a * b + c, rounded once */
#define v_sqrt vsqrtq_f32
#define v_round vrndnq_f32

#define vi_zero() vdupq_n_s32(0)
#define vi_load(p) vld1q_s32((const int32_t *)(p))
#define vi_store(p, v) vst1q_s32((int32_t *)(p), v)
#define vi_set1 vdupq_n_s32
#define vi_add vaddq_s32
#define vi_sub vsubq_s32
#define vi_mul vmulq_s32
#define vi_from_float vcvtnq_s32_f32
#define vi_to_float vcvtq_f32_s32

INLINE vf v_load_n(const float *p, int n)
{
    float lanes[LANES] = {0};
    for (int i = 0; i < LANES && i < n; i++)
        lanes[i] = p[i];
    return v_load(lanes);
}
INLINE void v_store_n(float *p, vf v, int n)
{
    float lanes[LANES];
    v_store(lanes, v);
    for (int i = 0; i < LANES && i < n; i++)
        p[i] = lanes[i];
}

/* v in lanes from `first` to before `last`, `other` elsewhere. */
INLINE vf v_keep(vf v, int first, int last, vf other)
{
    const vi lane = {0, 1, 2, 3};
    const uint32x4_t kept = vandq_u32(vcgeq_s32(lane, vi_set1(first)), vcltq_s32(lane, vi_set1(last)));
    return vbslq_f32(kept, v, other);
}

#define LEAST_POWER -127.0f
/* v 2^n for whole numbers n from LEAST_POWER (gives 0) to 127. */
INLINE vf v_times_power_of_2(vf v, vf n)
{
    return vmulq_f32(v, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vi_set1(127)), 23)));
}

#define v_sum vaddvq_f32
#define v_largest vmaxvq_f32
#define v_smallest vminvq_f32

INLINE vf v_load_b16(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }

/* LANES rows of LANES 4-byte numbers, `stride` bytes apart, to rows that were columns. */
INLINE void v_transpose(const char *rows, size_t stride, float *out)
{
    const vf a = v_load((const float *)rows), b = v_load((const float *)(rows + stride));
    const vf c = v_load((const float *)(rows + 2 * stride)), d = v_load((const float *)(rows + 3 * stride));
    const float32x4x2_t ab = vtrnq_f32(a, b), cd = vtrnq_f32(c, d);
    v_store(out, vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0])));
    v_store(out + 4, vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1])));
    v_store(out + 8, vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0])));
    v_store(out + 12, vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1])));
}

/* The nearest numbers from -128 to 127, which is what rows of 8-bit numbers are here (LOWEST_I8). */
INLINE void vi_store_u8(uint8_t *p, vi v)
{
    const int8x8_t bytes = vqmovn_s16(vcombine_s16(vqmovn_s32(v), vdup_n_s16(0)));
    memcpy(p, &bytes, LANES);
}

/* A group in the first lane, which the products of a tile take for all columns: filling all lanes, as compilers do of
 * themselves, is work for the units that multiply (LD1R in Arm's software optimization guides). */
INLINE vf first_lane(const char *p)
{
    vf v;
    __asm__("ldr %s0, %1" : "=w"(v) : "m"(*(const float *)p));
    return v;
}
#define BROADCAST_F32(p) first_lane(p)
#define DOT_F32(c, a, b) vfmaq_laneq_f32(c, b, a, 0)
#define BROADCAST_GROUP(p) vreinterpretq_s32_f32(first_lane(p))

#ifdef __ARM_FEATURE_BF16
#define HAS_BF16 1
/* bfloat16 numbers in the lower halves of the lanes. */
INLINE uint16x4_t v_round_b16(vf v) { return vreinterpret_u16_bf16(vcvt_bf16_f32(v)); }
INLINE vi v_to_b16(vf v) { return vreinterpretq_s32_u32(vmovl_u16(v_round_b16(v))); }
INLINE void v_store_b16(uint16_t *p, vf v) { vst1_u16(p, v_round_b16(v)); }
/* Pairs of bfloat16 numbers: of each lane the one of `low`, then the one of `high`. */
INLINE vi v_pairs_b16(vf low, vf high) { return vorrq_s32(v_to_b16(low), vshlq_n_s32(v_to_b16(high), 16)); }
/* Not by its intrinsic, with which clang 20 fills all lanes of the row. */
INLINE vf dot_b16(vf c, vi row, vi column)
{
    __asm__("bfdot %0.4s, %1.8h, %2.2h[0]" : "+w"(c) : "w"(column), "w"(row));
    return c;
}
#define DOT_BF16(c, a, b) dot_b16(c, a, b)
#endif

#ifdef __ARM_FEATURE_DOTPROD
/* Fours of 8-bit integers, signed by signed: the numbers of a row are 128 less than elsewhere. */
#define LOWEST_I8 -128
#define DOT_I8(c, a, b) vdotq_laneq_s32(c, vreinterpretq_s8_s32(b), vreinterpretq_s8_s32(a), 0)
#endif
