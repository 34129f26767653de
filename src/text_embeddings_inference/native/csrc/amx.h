/* Products by the tiles of AMX (Intel SDM, volume 1, chapter 18): bfloat16 and 8-bit integers, on the same panels as
 * the vectors' (product.c). 16 groups of 16 columns are a tile of B, 16 groups of up to 16 rows one of A. The sums of up
 * to AMX_ROWS rows and a panel's 48 columns stay in six tiles; A and B pass through the other two. Groups that fill no tile
 * are left to the vectors: either way a sum is added up in the order of its groups. */

#define AMX_ROWS 32
#define AMX_GROUPS 16
#define AMX_BYTES 64 /* of a row of a tile */

/* gcc's intrinsics do not tell it what memory they read (gcc 12: of a configuration 8 bytes, of a tile none). */
#define FINISH_STORES(p) __asm__ volatile("" : : "r"(p) : "memory")

/* Operand of LDTILECFG. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;

/* Rows of a tile of A, where `rows` are shared by one or two of them. */
INLINE int amx_rows(int rows) { return rows <= 16 ? rows : (rows + 1) / 2; }

/* Shapes the thread's tiles for blocks of `rows` rows, until `amx_end`. */
static void amx_begin(int rows)
{
    tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.row_bytes[i] = AMX_BYTES;
        shapes.rows[i] = (uint8_t)(i < 7 ? amx_rows(rows) : AMX_GROUPS);
    }
    FINISH_STORES(&shapes);
    _tile_loadconfig(&shapes);
}

/* Or every switch of threads would save the tiles. */
static void amx_end(void) { _tile_release(); }

/* Adds groups that fill no tile to the sums of a block, which has fewer than AMX_GROUPS of them left. */
#define ADD_REST(TILE, ADD, LOAD, STORE)                                                                            \
    for (int i = 0; i < rows; i += TILE_ROWS) {                                                                     \
        const int count = rows - i < TILE_ROWS ? rows - i : TILE_ROWS;                                              \
        float rest[TILE_ROWS * PANEL] __attribute__((aligned(64)));                                                 \
        TILE(count, a + (size_t)i * a_stride, a_stride, b, b_vector, b_group, groups % AMX_GROUPS, rest, PANEL * 4); \
        for (int k = 0; k < count; k++)                                                                             \
            for (int j = 0; j < PANEL; j += LANES) {                                                                \
                float *sum = (float *)((char *)tile + (size_t)(i + k) * tile_stride) + j;                           \
                STORE(sum, ADD(LOAD(sum), LOAD(rest + k * PANEL + j)));                                             \
            }                                                                                                       \
    }

/* As DEFINE_TILE. Of two tiles of rows the upper one's sums are in tiles 0 to 2, the lower one's in 3 to 5. */
#define DEFINE_AMX(NAME, DOT, ...)                                                                      \
    static void NAME(int rows, const char *a, size_t a_stride, const char *b, size_t b_vector, size_t b_group,\
                     int groups, void *tile, size_t tile_stride)                                        \
    {                                                                                                   \
        const size_t half = (size_t)amx_rows(rows);                                                     \
        const size_t below = ((size_t)rows - half) * a_stride; /* a row may be in both tiles */         \
        char *lower = (char *)tile + ((size_t)rows - half) * tile_stride;                               \
        FINISH_STORES(a);                                                                               \
        _tile_zero(0);                                                                                  \
        _tile_zero(1);                                                                                  \
        _tile_zero(2);                                                                                  \
        _tile_zero(3);                                                                                  \
        _tile_zero(4);                                                                                  \
        _tile_zero(5);                                                                                  \
        for (int g = groups / AMX_GROUPS; g > 0; g--, a += AMX_BYTES, b += AMX_GROUPS * b_group) {      \
            _tile_loadd(6, a, a_stride);                                                                \
            _tile_loadd(7, b, b_group);                                                                 \
            DOT(0, 6, 7);                                                                               \
            if (rows <= 16) {                                                                           \
                _tile_loadd(7, b + b_vector, b_group);                                                  \
                DOT(1, 6, 7);                                                                           \
                _tile_loadd(7, b + 2 * b_vector, b_group);                                              \
                DOT(2, 6, 7);                                                                           \
                continue;                                                                               \
            }                                                                                           \
            _tile_loadd(6, a + below, a_stride);                                                        \
            DOT(3, 6, 7);                                                                               \
            _tile_loadd(7, b + b_vector, b_group);                                                      \
            DOT(4, 6, 7);                                                                               \
            _tile_loadd(6, a, a_stride);                                                                \
            DOT(1, 6, 7);                                                                               \
            _tile_loadd(7, b + 2 * b_vector, b_group);                                                  \
            DOT(2, 6, 7);                                                                               \
            _tile_loadd(6, a + below, a_stride);                                                        \
            DOT(5, 6, 7);                                                                               \
        }                                                                                               \
        _tile_stored(0, (char *)tile, tile_stride);                                                     \
        _tile_stored(1, (char *)tile + AMX_BYTES, tile_stride);                                         \
        _tile_stored(2, (char *)tile + 2 * AMX_BYTES, tile_stride);                                     \
        if (rows > 16) {                                                                                \
            _tile_stored(3, lower, tile_stride);                                                        \
            _tile_stored(4, lower + AMX_BYTES, tile_stride);                                            \
            _tile_stored(5, lower + 2 * AMX_BYTES, tile_stride);                                        \
        }                                                                                               \
        if (groups % AMX_GROUPS)                                                                        \
            ADD_REST(__VA_ARGS__)                                                                       \
    }
DEFINE_AMX(amx_bf16, _tile_dpbf16ps, tile_bf16, v_add, v_load, v_store)
DEFINE_AMX(amx_i8, _tile_dpbusd, tile_i8, vi_add, vi_load, vi_store)
