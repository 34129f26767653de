/* The innermost loops: a tile of C += A B in registers.
 *
 * A: `rows` rows of 4-byte groups (one float, two 16-bit numbers or four 8-bit ones), each broadcast to all lanes.
 * B: for each group `vectors` vectors, a lane for each column. The tile is written when all groups are
 * summed: every element over its groups in one order, whatever the number of rows or vectors. */

#define PANEL (TILE_VECTORS * LANES)

/* Keeps GCC from spilling sums to memory within the loop, which it does for some shapes: twice as slow. */
#if defined(__AVX512F__) && defined(__GNUC__)
#define IN_REGISTER(x) __asm__ volatile("" : "+v"(x))
#elif defined(__AVX2__) && defined(__GNUC__)
#define IN_REGISTER(x) __asm__ volatile("" : "+x"(x))
#else
#define IN_REGISTER(x) (void)0
#endif

/* How far ahead of the columns that are read B is fetched into the first cache: measured, 3 to 5 % of a product. */
#define PREFETCH_BYTES 3072
#ifndef FETCH_VECTORS
#define FETCH_VECTORS TILE_VECTORS /* of a group, that begin in another cache line */
#endif

/* a_stride, tile_stride: bytes from one row to the next; b_vector, b_group: from one vector or group of B to the next. */
#define DEFINE_TILE(NAME, SUM, ZERO, VECTOR, LOAD, BROADCAST, DOT, STORE)                                            \
    INLINE void NAME##_of(const int rows, const int vectors, const char *a, size_t a_stride, const char *b,          \
                          size_t b_vector, size_t b_group, int groups, void *tile, size_t tile_stride)               \
    {                                                                                                                \
        SUM c[TILE_ROWS][TILE_VECTORS];                                                                              \
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < vectors; j++) c[i][j] = ZERO();             \
        for (int g = 0; g < groups; g++, a += 4, b += b_group) {                                                     \
            VECTOR column[TILE_VECTORS];                                                                             \
            UNROLL for (int j = 0; j < vectors; j++) column[j] = LOAD(b + (size_t)j * b_vector);                     \
            UNROLL for (int j = 0; j < vectors && j < FETCH_VECTORS; j++)                                            \
                __builtin_prefetch(b + (size_t)j * b_vector + PREFETCH_BYTES);                                       \
            UNROLL for (int i = 0; i < rows; i++) {                                                                  \
                const VECTOR row = BROADCAST(a + (size_t)i * a_stride);                                              \
                UNROLL for (int j = 0; j < vectors; j++) {                                                           \
                    c[i][j] = DOT(c[i][j], row, column[j]);                                                          \
                    IN_REGISTER(c[i][j]);                                                                            \
                }                                                                                                    \
            }                                                                                                        \
        }                                                                                                            \
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < vectors; j++)                               \
            STORE((char *)tile + (size_t)i * tile_stride + (size_t)j * LANES * 4, c[i][j]);                          \
    }                                                                                                                \
    static void NAME(int rows, const char *a, size_t a_stride, const char *b, size_t b_vector, size_t b_group,       \
                     int groups, void *tile, size_t tile_stride)                                                     \
    {                                                                                                                \
        switch (rows) {                                                                                              \
            EACH_TILE_ROWS(NAME##_of, TILE_VECTORS, a, a_stride, b, b_vector, b_group, groups, tile, tile_stride)    \
        }                                                                                                            \
    }

#define TILE_CASE(n, f, ...) \
    case n: f(n, __VA_ARGS__); break;
#if TILE_ROWS == 8
#define EACH_TILE_ROWS(...)                                                                              \
    TILE_CASE(1, __VA_ARGS__) TILE_CASE(2, __VA_ARGS__) TILE_CASE(3, __VA_ARGS__) TILE_CASE(4, __VA_ARGS__) \
    TILE_CASE(5, __VA_ARGS__) TILE_CASE(6, __VA_ARGS__) TILE_CASE(7, __VA_ARGS__) TILE_CASE(8, __VA_ARGS__)
#elif TILE_ROWS == 6
#define EACH_TILE_ROWS(...)                                                                              \
    TILE_CASE(1, __VA_ARGS__) TILE_CASE(2, __VA_ARGS__) TILE_CASE(3, __VA_ARGS__) TILE_CASE(4, __VA_ARGS__) \
    TILE_CASE(5, __VA_ARGS__) TILE_CASE(6, __VA_ARGS__)
#else
#define EACH_TILE_ROWS(...) \
    TILE_CASE(1, __VA_ARGS__) TILE_CASE(2, __VA_ARGS__) TILE_CASE(3, __VA_ARGS__) TILE_CASE(4, __VA_ARGS__)
#endif

#define LOAD_F32(p) v_load((const float *)(p))
#define STORE_F32(p, v) v_store((float *)(p), v)
#ifndef DOT_F32
#define BROADCAST_F32(p) v_set1(*(const float *)(p))
#define DOT_F32(c, a, b) v_fma(a, b, c)
#endif
DEFINE_TILE(tile_f32, vf, v_zero, vf, LOAD_F32, BROADCAST_F32, DOT_F32, STORE_F32)

#define LOAD_B16(p) v_load_b16((const uint16_t *)(p))
DEFINE_TILE(tile_f32_b16, vf, v_zero, vf, LOAD_B16, BROADCAST_F32, DOT_F32, STORE_F32)

#ifndef BROADCAST_GROUP
INLINE int32_t group_at(const char *p)
{
    int32_t group;
    memcpy(&group, p, sizeof group);
    return group;
}
#define BROADCAST_GROUP(p) vi_set1(group_at(p))
#endif

#ifdef HAS_BF16
DEFINE_TILE(tile_bf16, vf, v_zero, vi, vi_load, BROADCAST_GROUP, DOT_BF16, STORE_F32)
#endif

/* Pairs of 16-bit integers: their products are summed in 32 bits. */
#if defined(__AVX512VNNI__)
#define DOT_I16 _mm512_dpwssd_epi32
#elif defined(__AVXVNNI__)
#define DOT_I16 _mm256_dpwssd_avx_epi32
#elif defined(__AVX512BW__)
#define DOT_I16(c, a, b) _mm512_add_epi32(c, _mm512_madd_epi16(a, b))
#elif defined(__AVX2__)
#define DOT_I16(c, a, b) _mm256_add_epi32(c, _mm256_madd_epi16(a, b))
#endif
#ifdef DOT_I16
DEFINE_TILE(tile_i16, vi, vi_zero, vi, vi_load, BROADCAST_GROUP, DOT_I16, vi_store)
#endif

/* Fours of 8-bit integers, unsigned (of rows, LOWEST_I8 + 0..I8_ROW) by signed (weights, up to +-I8_WEIGHT). */
#define I8_ROW 255
#define I8_WEIGHT 127
#if defined(__AVX512VNNI__)
#define DOT_I8 _mm512_dpbusd_epi32
#elif defined(__AVXVNNI__)
#define DOT_I8 _mm256_dpbusd_avx_epi32
#endif
#if !defined(DOT_I8) && defined(__AVX2__)
/* Without VNNI: vpmaddubsw adds two products in 16 bits, 2 * 182 * 90 = 32,760 at most (rounding twice may give one more). */
#undef I8_ROW
#undef I8_WEIGHT
#define I8_ROW 181
#define I8_WEIGHT 90
#ifdef __AVX512BW__
#define DOT_I8(c, a, b) _mm512_add_epi32(c, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)))
#else
#define DOT_I8(c, a, b) _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
#endif
#endif
#ifdef DOT_I8
#ifndef LOWEST_I8
#define LOWEST_I8 0
#endif
DEFINE_TILE(tile_i8, vi, vi_zero, vi, vi_load, BROADCAST_GROUP, DOT_I8, vi_store)
#endif
