/* Vectors of 4 floats in the compilers' own terms: what any CPU can do (SSE2, NEON, RVV). */
#define LANES 4
#define TILE_ROWS 4
#define TILE_VECTORS 2

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef float vf_anywhere __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t vi_anywhere __attribute__((vector_size(16), aligned(4), may_alias));

INLINE vf v_load(const float *p) { return *(const vf_anywhere *)p; }
INLINE void v_store(float *p, vf v) { *(vf_anywhere *)p = v; }
INLINE vf v_set1(float x) { return (vf){x, x, x, x}; }
INLINE vf v_zero(void) { return v_set1(0); }
INLINE vf v_add(vf a, vf b) { return a + b; }
INLINE vf v_sub(vf a, vf b) { return a - b; }
INLINE vf v_mul(vf a, vf b) { return a * b; }
INLINE vf v_div(vf a, vf b) { return a / b; }
INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf v_choose(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
INLINE vf v_max(vf a, vf b) { return v_choose(a > b, a, b); } /* the second where one is not a number, as v_min */
INLINE vf v_min(vf a, vf b) { return v_choose(a < b, a, b); }

INLINE vi vi_set1(int32_t x) { return (vi){x, x, x, x}; }
INLINE vi vi_zero(void) { return vi_set1(0); }
INLINE vi vi_load(const void *p) { return *(const vi_anywhere *)p; }
INLINE void vi_store(void *p, vi v) { *(vi_anywhere *)p = v; }
INLINE vi vi_add(vi a, vi b) { return a + b; }
INLINE vi vi_sub(vi a, vi b) { return a - b; }
INLINE vi vi_mul(vi a, vi b) { return a * b; }
INLINE vf vi_to_float(vi v) { return __builtin_convertvector(v, vf); }

#define EACH_LANE(v, f) ((vf){f((v)[0]), f((v)[1]), f((v)[2]), f((v)[3])})
INLINE vf v_sqrt(vf v) { return EACH_LANE(v, sqrtf); }
INLINE vf v_round(vf v) { return EACH_LANE(v, rintf); }
INLINE vi vi_from_float(vf v) { return __builtin_convertvector(v_round(v), vi); }

INLINE vf v_load_n(const float *p, int n)
{
    float lanes[LANES] = {0};
    memcpy(lanes, p, sizeof(float) * (size_t)(n < LANES ? n : LANES));
    return v_load(lanes);
}
INLINE void v_store_n(float *p, vf v, int n) { memcpy(p, &v, sizeof(float) * (size_t)(n < LANES ? n : LANES)); }

/* v in lanes from `first` to before `last`, `other` elsewhere. */
INLINE vf v_keep(vf v, int first, int last, vf other)
{
    const vi lane = {0, 1, 2, 3};
    return v_choose((lane >= vi_set1(first)) & (lane < vi_set1(last)), v, other);
}

#define LEAST_POWER -127.0f
/* v 2^n for whole numbers n from LEAST_POWER (gives 0) to 127. */
INLINE vf v_times_power_of_2(vf v, vf n) { return v * (vf)((__builtin_convertvector(n, vi) + 127) << 23); }

INLINE float v_sum(vf v) { return (v[0] + v[2]) + (v[1] + v[3]); }
INLINE float v_largest(vf v) { return fmaxf(fmaxf(v[0], v[2]), fmaxf(v[1], v[3])); }
INLINE float v_smallest(vf v) { return fminf(fminf(v[0], v[2]), fminf(v[1], v[3])); }

INLINE vf v_load_b16(const uint16_t *p) { return (vf)((vi){p[0], p[1], p[2], p[3]} << 16); }

/* LANES rows of LANES 4-byte numbers, `stride` bytes apart, to rows that were columns. */
INLINE void v_transpose(const char *rows, size_t stride, float *out)
{
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < LANES; j++)
            memcpy(out + j * LANES + i, rows + (size_t)i * stride + 4 * j, 4);
}
