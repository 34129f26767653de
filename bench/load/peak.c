/* How fast one core multiplies and adds: each function runs one instruction of a number type on registers alone, as often
 * as it is told, and gives how many multiplications and additions these were. Twelve sums that do not wait for each other
 * keep the units busy; the empty asm keeps the compiler from leaving out a step whose result it knows, or from going
 * through memory. What is compiled is the widest form that the flags allow; a type without instructions has no function.
 * Tiles can be used where the process has asked for them. */
#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#if defined(__AVX512F__) && defined(__AVX512BW__)
#define WIDTH 64
#define IN "v"
typedef __m512i integers;
#define ALL(bits) _mm512_set1_epi32(bits)
#define FLOATS(op, ...) (integers) _mm512_##op##_ps(__VA_ARGS__)
#define AS_FLOATS(x) ((__m512)(x))
#define INTEGERS(op, ...) _mm512_##op(__VA_ARGS__)
#else
#define WIDTH 32
#define IN "x"
typedef __m256i integers;
#define ALL(bits) _mm256_set1_epi32(bits)
#define FLOATS(op, ...) (integers) _mm256_##op##_ps(__VA_ARGS__)
#define AS_FLOATS(x) ((__m256)(x))
#define INTEGERS(op, ...) _mm256_##op(__VA_ARGS__)
#endif

#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define SUMS 12
#define START(k) integers c##k = ALL(k);
#define STEP(k) \
    c##k = MULTIPLY(c##k, a, b); \
    __asm__ volatile("" : "+" IN(c##k), "+" IN(b));
#define KEEP(k) __asm__ volatile("" : : IN(c##k));

/* per_lane: multiplications of one step in 32 bits of a sum. bits: of a and b, numbers whose products are no denormals. */
#define PEAK(name, per_lane, bits) \
    double peak_##name(long loops) \
    { \
        integers a = ALL(bits), b = ALL(bits); \
        EACH(START) \
        for (long i = 0; i < loops; i++) { \
            EACH(STEP) \
        } \
        EACH(KEEP) \
        return 2.0 * (per_lane) * (WIDTH / 4) * SUMS * loops; \
    }

#define ONE 0x3f800000
#define ONES_BF16 0x3f803f80
#define ONES_16 0x00010001
#define ONES_8 0x01010101

#define MULTIPLY(c, a, b) FLOATS(fmadd, AS_FLOATS(a), AS_FLOATS(b), AS_FLOATS(c))
PEAK(float32, 1, ONE)
#undef MULTIPLY

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
#include <stdint.h>
#define SIDE 16 /* of a tile: rows, and lanes of 32 bits in each */

/* Two tiles of each matrix and four of sums, as in a product: by TMUL, see Intel SDM, volume 1, chapter 18. */
#define PEAK_OF_TILES(name, MULTIPLY_TILES, per_lane, bits) \
    double peak_##name(long loops) \
    { \
        struct { \
            uint8_t palette, start_row, reserved[14]; \
            uint16_t row_bytes[16]; \
            uint8_t rows[16]; \
        } shapes = {.palette = 1}; \
        int32_t ones[SIDE * SIDE]; \
        for (int i = 0; i < 8; i++) { \
            shapes.row_bytes[i] = SIDE * sizeof *ones; \
            shapes.rows[i] = SIDE; \
        } \
        for (int i = 0; i < SIDE * SIDE; i++) \
            ones[i] = bits; \
        __asm__ volatile("" : : "r"(&shapes), "r"(ones) : "memory"); \
        _tile_loadconfig(&shapes); \
        _tile_zero(0); \
        _tile_zero(1); \
        _tile_zero(2); \
        _tile_zero(3); \
        _tile_loadd(4, ones, SIDE * sizeof *ones); \
        _tile_loadd(5, ones, SIDE * sizeof *ones); \
        _tile_loadd(6, ones, SIDE * sizeof *ones); \
        _tile_loadd(7, ones, SIDE * sizeof *ones); \
        for (long i = 0; i < loops; i++) { \
            MULTIPLY_TILES(0, 4, 6); \
            MULTIPLY_TILES(1, 4, 7); \
            MULTIPLY_TILES(2, 5, 6); \
            MULTIPLY_TILES(3, 5, 7); \
        } \
        _tile_release(); \
        return 2.0 * (per_lane) * SIDE * SIDE * SIDE * 4 * loops; \
    }
PEAK_OF_TILES(bfloat16, _tile_dpbf16ps, 2, ONES_BF16)
PEAK_OF_TILES(int8, _tile_dpbusd, 4, ONES_8)
#define HAS_TILES
#endif

#if defined(__AVX512BF16__) && WIDTH == 64 && !defined(HAS_TILES)
#define MULTIPLY(c, a, b) (integers) _mm512_dpbf16_ps((__m512)(c), (__m512bh)(a), (__m512bh)(b))
PEAK(bfloat16, 2, ONES_BF16)
#undef MULTIPLY
#endif

#if defined(__AVX512VNNI__) && WIDTH == 64
#define MULTIPLY_16(c, a, b) _mm512_dpwssd_epi32(c, a, b)
#define MULTIPLY_8(c, a, b) _mm512_dpbusd_epi32(c, a, b)
#elif defined(__AVXVNNI__)
#define MULTIPLY_16(c, a, b) _mm256_dpwssd_avx_epi32(c, a, b)
#define MULTIPLY_8(c, a, b) _mm256_dpbusd_avx_epi32(c, a, b)
#else
#define MULTIPLY_16(c, a, b) INTEGERS(add_epi32, c, INTEGERS(madd_epi16, a, b))
#define MULTIPLY_8(c, a, b) INTEGERS(add_epi32, c, INTEGERS(madd_epi16, INTEGERS(maddubs_epi16, a, b), ALL(ONES_16)))
#endif

#define MULTIPLY MULTIPLY_16
PEAK(int16, 2, ONES_16)
#undef MULTIPLY

#ifndef HAS_TILES
#define MULTIPLY MULTIPLY_8
PEAK(int8, 4, ONES_8)
#endif
#endif
