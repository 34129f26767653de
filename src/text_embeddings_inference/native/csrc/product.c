/* TEI_LINEAR: out[M, N] = act(x[M, K] W^T + b) * z + y, for a block of rows and a range of panels.
 *
 * W lies in panels of PANEL outputs, `[N / PANEL][K / g][PANEL][g]`: the vectors that a tile reads, in its order. A panel
 * is multiplied with all rows of the block before the next one is read. */

/* Bytes of a vector of a panel: LANES columns of one group. */
INLINE size_t vector_bytes(int format) { return LANES * (format == TEI_F32_B16 ? sizeof(uint16_t) : 4); }

/* What a finished tile goes through on its way to `out`. */
typedef struct {
    const tei_matrix *m;
    const operand *a;
    int row, column;   /* of a and m: where the tile begins */
    rows_of out, y, z; /* at the tile's first row and column; width: columns that there are */
} ending;

/* One vector of row `i` of a tile, from column `j` on, to its place. Sums of integers become
 * scale of the row * scale of the output * (sum - zero * sum of the weights). */
#define END_VECTOR(j, n)                                                                             \
    {                                                                                                \
        vf v = v_load(tile + (j));                                                                   \
        if (format == TEI_I8 || format == TEI_I16) {                                                 \
            vi sum = vi_load(tile + (j));                                                            \
            if (format == TEI_I8)                                                                    \
                sum = vi_sub(sum, vi_mul(zero, vi_load(sums + (j))));                                \
            v = v_mul(vi_to_float(sum), v_mul(v_load(scales + (j)), row_scale));                     \
        }                                                                                            \
        if (bias)                                                                                    \
            v = v_add(v, v_load(bias + (j)));                                                        \
        v = v_unary(act, v);                                                                         \
        if (z)                                                                                       \
            v = v_mul(v, load(z + (j), n));                                                          \
        if (y)                                                                                       \
            v = v_add(v, load(y + (j), n));                                                          \
        if (half)                                                                                    \
            store_b16((uint16_t *)out + (j), v, n);                                                  \
        else                                                                                         \
            store(out + (j), v, n);                                                                  \
    }

INLINE void end_row(const int act, const int format, const float *tile, const ending *e, const int whole, const int half,
                    int i, const float *bias, const float *y, const float *z, float *out)
{
    const float *scales = format == TEI_F32 ? NULL : e->m->scale + e->column;
    const int32_t *sums = format == TEI_I8 ? e->m->sums + e->column : NULL;
    const vf row_scale = v_set1(format == TEI_F32 ? 1 : e->a->scale[e->row + i]);
    const vi zero = vi_set1(format == TEI_I8 ? e->a->zero[e->row + i] : 0);
    (void)zero, (void)sums;
    if (whole)
        UNROLL for (int j = 0; j < PANEL; j += LANES) END_VECTOR(j, LANES)
    else
        EACH_VECTOR(e->out.width, j, n, END_VECTOR(j, n))
}

/* The same for all rows of a tile; what a product does not have is left out of the loop. */
INLINE void end_tile(const int act, const int format, const float *tile, int rows, ending e)
{
    const float *bias = e.m->bias ? e.m->bias + e.column : NULL, *y = e.y.p, *z = e.z.p;
#define END_ROWS(whole, half, y_, z_)                                                      \
    for (int i = 0; i < rows; i++, tile += PANEL, e.out.p += e.out.stride) {               \
        end_row(act, format, tile, &e, whole, half, i, bias, y_, z_, e.out.p);             \
        y += e.y.stride, z += e.z.stride;                                                  \
    }
    if (e.out.width != PANEL)
        END_ROWS(0, e.out.half, y, z)
    else if (y || z)
        END_ROWS(1, e.out.half, y, z)
    else if (e.out.half)
        END_ROWS(1, 1, NULL, NULL)
    else
        END_ROWS(1, 0, NULL, NULL)
}

/* With the function and the format known to the compiler. */
static void end_floats(int act, const float *tile, int rows, const ending *e) { FOR_UNARY(act, end_tile, TEI_F32, tile, rows, *e) }
#ifdef DOT_I16
static void end_i16(int act, const float *tile, int rows, const ending *e) { FOR_UNARY(act, end_tile, TEI_I16, tile, rows, *e) }
#endif
#ifdef DOT_I8
static void end_i8(int act, const float *tile, int rows, const ending *e) { FOR_UNARY(act, end_tile, TEI_I8, tile, rows, *e) }
#endif

/* How products of a format are computed. */
typedef struct {
    void (*tile)(int rows, const char *a, size_t a_stride, const char *b, size_t b_vector, size_t b_group, int groups,
                 void *tile, size_t tile_stride);
    void (*end)(int act, const float *tile, int rows, const ending *e);
    int rows; /* of a tile, at most */
    /* Before the first tile and after the last one, where something has to be done. All tiles then have the same number
     * of rows, a row of some being in two. */
    void (*before)(int rows);
    void (*after)(void);
} arithmetic;

static const arithmetic arithmetics[TEI_FORMATS] = {
    [TEI_F32] = {tile_f32, end_floats, TILE_ROWS, NULL, NULL},
    [TEI_F32_B16] = {tile_f32_b16, end_floats, TILE_ROWS, NULL, NULL},
#ifdef HAS_AMX
    [TEI_BF16] = {amx_bf16, end_floats, AMX_ROWS, amx_begin, amx_end},
    [TEI_I8] = {amx_i8, end_i8, AMX_ROWS, amx_begin, amx_end},
#else
#ifdef HAS_BF16
    [TEI_BF16] = {tile_bf16, end_floats, TILE_ROWS, NULL, NULL},
#endif
#ifdef DOT_I8
    [TEI_I8] = {tile_i8, end_i8, TILE_ROWS, NULL, NULL},
#endif
#endif
#ifdef DOT_I16
    [TEI_I16] = {tile_i16, end_i16, TILE_ROWS, NULL, NULL},
#endif
};

#ifdef HAS_AMX
#define MOST_TILE_ROWS AMX_ROWS
#else
#define MOST_TILE_ROWS TILE_ROWS
#endif

/* A product's columns of panels from `first` to before `last`, for up to BLOCK_ROWS rows. */
static void multiply_block(const tei_matrix *m, int act, operand a, int rows, int first, int last, rows_of out, rows_of y, rows_of z)
{
    const arithmetic how = arithmetics[m->format];
    const size_t vector = vector_bytes(m->format), panel = vector * TILE_VECTORS * (size_t)m->groups;
    const int blocks = (rows + how.rows - 1) / how.rows, most = (rows + blocks - 1) / blocks;
    float tile[MOST_TILE_ROWS * PANEL] __attribute__((aligned(64)));
    if (how.before)
        how.before(most);
    for (int p = first; p < last; p++) {
        const char *b = (const char *)m->panels + (size_t)p * panel;
        const int column = p * PANEL, width = m->outputs - column < PANEL ? m->outputs - column : PANEL;
        for (int k = 0; k < blocks; k++) {
            const int row = rows * k / blocks, count = rows * (k + 1) / blocks - row;
            const int from = how.before && row + most > rows ? rows - most : row;
            how.tile(how.before ? most : count, a.p + (size_t)from * a.stride, a.stride, b, vector, vector * TILE_VECTORS, m->groups,
                     tile, sizeof(float) * PANEL);
            const ending e = {m, &a, row, column, corner(out, row, column, width), corner(y, row, column, width),
                              corner(z, row, column, width)};
            how.end(act, tile + (row - from) * PANEL, count, &e);
        }
    }
    if (how.after)
        how.after();
}

INLINE int panels_of(const tei_matrix *m) { return (m->outputs + PANEL - 1) / PANEL; }

static void step_linear(const tei_task *t)
{
    const tei_step *s = t->step;
    const tei_matrix *m = s->a;
    const int first = panels_of(m) * t->part / t->parts, last = panels_of(m) * (t->part + 1) / t->parts;
    const int rows = t->last - t->first;
    if (first == last)
        return;
    const operand a = operand_of(m, rows_in(t, s->x), rows, t->has_operand, t->scratch);
    multiply_block(m, s->kind, a, rows, first, last, rows_in(t, s->out), rows_in(t, s->y), rows_in(t, s->z));
}
