/* Instructions of AVX-VNNI and AMX in plain C, as Intel's SDM defines them, in place of the compiler's intrinsics: included
 * before a level's sources, which then run on a CPU without them. Misuse of tiles, an exception there, ends the program. */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline __m256i emulated_dpbusd(__m256i sum, __m256i a, __m256i b)
{
    int32_t s[8];
    uint8_t u[32];
    int8_t v[32];
    memcpy(s, &sum, 32), memcpy(u, &a, 32), memcpy(v, &b, 32);
    for (int i = 0; i < 32; i++)
        s[i / 4] += u[i] * v[i];
    memcpy(&sum, s, 32);
    return sum;
}

static inline __m256i emulated_dpwssd(__m256i sum, __m256i a, __m256i b)
{
    int32_t s[8];
    int16_t u[16], v[16];
    memcpy(s, &sum, 32), memcpy(u, &a, 32), memcpy(v, &b, 32);
    for (int i = 0; i < 16; i++)
        s[i / 2] += u[i] * v[i];
    memcpy(&sum, s, 32);
    return sum;
}

#undef _mm256_dpbusd_avx_epi32
#undef _mm256_dpwssd_avx_epi32
#define _mm256_dpbusd_avx_epi32 emulated_dpbusd
#define _mm256_dpwssd_avx_epi32 emulated_dpwssd

typedef struct {
    int rows, bytes; /* 0: not shaped */
    uint8_t data[16][64];
} emulated_tile;
static _Thread_local emulated_tile emulated_tiles[8];

static inline void demand(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "a tile is misused: %s\n", what);
        abort();
    }
}

static inline emulated_tile *shaped(int number)
{
    demand(emulated_tiles[number].rows > 0, "it has no shape");
    return emulated_tiles + number;
}

static inline void emulated_loadconfig(const void *memory)
{
    const uint8_t *bytes = memory;
    demand(bytes[0] == 1, "there is palette 1 only");
    for (int i = 0; i < 8; i++) {
        uint16_t row_bytes;
        memcpy(&row_bytes, bytes + 16 + 2 * i, 2);
        demand(row_bytes <= 64 && bytes[48 + i] <= 16, "it is too large");
        emulated_tiles[i] = (emulated_tile){.rows = bytes[48 + i], .bytes = row_bytes};
    }
}

static inline void emulated_release(void) { memset(emulated_tiles, 0, sizeof emulated_tiles); }

static inline void emulated_zero(int number) { memset(shaped(number)->data, 0, sizeof emulated_tiles->data); }

static inline void emulated_loadd(int number, const void *memory, size_t stride)
{
    emulated_tile *t = shaped(number);
    memset(t->data, 0, sizeof t->data);
    for (int i = 0; i < t->rows; i++)
        memcpy(t->data[i], (const char *)memory + (size_t)i * stride, (size_t)t->bytes);
}

static inline void emulated_stored(int number, void *memory, size_t stride)
{
    const emulated_tile *t = shaped(number);
    for (int i = 0; i < t->rows; i++)
        memcpy((char *)memory + (size_t)i * stride, t->data[i], (size_t)t->bytes);
}

/* Denormal numbers are taken for 0. */
static inline float no_denormal(float x) { return fabsf(x) < 1.17549435e-38f ? 0 : x; }

static inline float emulated_b16(const uint8_t *p)
{
    const uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float x;
    memcpy(&x, &bits, 4);
    return no_denormal(x);
}

static inline void check_shapes(const emulated_tile *c, const emulated_tile *a, const emulated_tile *b)
{
    demand(c->rows == a->rows && c->bytes == b->bytes && a->bytes / 4 == b->rows, "shapes do not fit");
}

/* Sums over the even and over the odd numbers of a row, added to each other at the end. */
static inline void emulated_dpbf16ps(int sums, int rows, int columns)
{
    emulated_tile *c = shaped(sums), *a = shaped(rows), *b = shaped(columns);
    check_shapes(c, a, b);
    for (int m = 0; m < c->rows; m++)
        for (int n = 0; n < c->bytes / 4; n++) {
            float even = 0, odd = 0, sum;
            for (int k = 0; k < b->rows; k++) {
                even = no_denormal(fmaf(emulated_b16(a->data[m] + 4 * k), emulated_b16(b->data[k] + 4 * n), even));
                odd = no_denormal(fmaf(emulated_b16(a->data[m] + 4 * k + 2), emulated_b16(b->data[k] + 4 * n + 2), odd));
            }
            memcpy(&sum, c->data[m] + 4 * n, 4);
            sum = no_denormal(no_denormal(sum) + no_denormal(even + odd));
            memcpy(c->data[m] + 4 * n, &sum, 4);
        }
}

static inline void emulated_tile_dpbusd(int sums, int rows, int columns)
{
    emulated_tile *c = shaped(sums), *a = shaped(rows), *b = shaped(columns);
    check_shapes(c, a, b);
    for (int m = 0; m < c->rows; m++)
        for (int n = 0; n < c->bytes / 4; n++) {
            int32_t sum;
            memcpy(&sum, c->data[m] + 4 * n, 4);
            for (int k = 0; k < b->rows; k++)
                for (int i = 0; i < 4; i++)
                    sum += a->data[m][4 * k + i] * (int8_t)b->data[k][4 * n + i];
            memcpy(c->data[m] + 4 * n, &sum, 4);
        }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbusd
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_zero emulated_zero
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_dpbf16ps emulated_dpbf16ps
#define _tile_dpbusd emulated_tile_dpbusd
