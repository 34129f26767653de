/* TEI_LINEAR: out[M, N] = act(x[M, K] W^T + b) * z + y, for a block of rows and a range of panels.
 *
 * W lies in panels of PANEL outputs, `[N / PANEL][K / g][PANEL][g]`: the vectors that a tile reads, in its order. A panel
 * is multiplied with all rows of the block before the next one is read. */

typedef void (*tile_function)(int rows, const char *a, size_t a_stride, const char *b, size_t b_vector, size_t b_group,
                              int groups, void *tile, size_t tile_stride);

static tile_function tile_for(int format)
{
    switch (format) {
    case TEI_F32_B16: return tile_f32_b16;
#ifdef HAS_BF16
    case TEI_BF16: return tile_bf16;
#endif
#ifdef DOT_I16
    case TEI_I16: return tile_i16;
#endif
#ifdef DOT_I8
    case TEI_I8: return tile_i8;
#endif
    default: return tile_f32;
    }
}

/* Bytes of a vector of a panel: LANES columns of one group. */
INLINE size_t vector_bytes(int format) { return LANES * (format == TEI_F32_B16 ? sizeof(uint16_t) : 4); }

/* Sums of integers to floats, in place: scale of the row * scale of the output * (sum - zero * sum of the weights). */
static void from_integers(const tei_matrix *m, const operand *a, int row, int rows, int column, float *tile)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < PANEL; j += LANES) {
            float *place = tile + i * PANEL + j;
            vi sum = vi_load(place);
            if (m->format == TEI_I8)
                sum = vi_sub(sum, vi_mul(vi_set1(a->zero[row + i]), vi_load(m->sums + column + j)));
            v_store(place, v_mul(v_mul(vi_to_float(sum), v_load(m->scale + column + j)), v_set1(a->scale[row + i])));
        }
}

/* What a finished tile goes through on its way to `out`. */
typedef struct {
    const float *bias; /* of the tile's first column; NULL: none */
    rows_of out, y, z; /* at the tile's first row and column; width: columns that there are */
} ending;

INLINE void end_tile(const int act, const float *tile, int rows, ending e)
{
    for (int i = 0; i < rows; i++, tile += PANEL, e.out.p += e.out.stride, e.y.p += e.y.stride, e.z.p += e.z.stride)
        EACH_VECTOR(e.out.width, j, n, {
            vf v = v_load(tile + j);
            if (e.bias)
                v = v_add(v, v_load(e.bias + j));
            v = v_unary(act, v);
            if (e.z.p)
                v = v_mul(v, load(e.z.p + j, n));
            if (e.y.p)
                v = v_add(v, load(e.y.p + j, n));
            store(e.out.p + j, v, n);
        })
}

/* The rows from `row` on, from `column` on. */
INLINE rows_of corner(rows_of x, int row, int column, int width)
{
    return (rows_of){x.p ? x.p + (size_t)row * x.stride + column : NULL, x.stride, width};
}

static void step_linear(const tei_task *t)
{
    const tei_step *s = t->step;
    const tei_matrix *m = s->a;
    const int rows = t->last - t->first, panels = (m->outputs + PANEL - 1) / PANEL;
    const int first = panels * t->part / t->parts, last = panels * (t->part + 1) / t->parts;
    if (first == last)
        return;
    const rows_of out = rows_in(t, s->out), y = rows_in(t, s->y), z = rows_in(t, s->z);
    const operand a = operand_of(m, rows_in(t, s->x), rows, t->scratch);
    const tile_function tile_of = tile_for(m->format);
    const size_t vector = vector_bytes(m->format), panel = vector * TILE_VECTORS * (size_t)m->groups;
    const int blocks = (rows + TILE_ROWS - 1) / TILE_ROWS;
    float tile[TILE_ROWS * PANEL] __attribute__((aligned(64)));
    for (int p = first; p < last; p++) {
        const char *b = (const char *)m->panels + (size_t)p * panel;
        const int column = p * PANEL, width = m->outputs - column < PANEL ? m->outputs - column : PANEL;
        for (int k = 0; k < blocks; k++) {
            const int row = rows * k / blocks, count = rows * (k + 1) / blocks - row;
            tile_of(count, a.p + (size_t)row * a.stride, a.stride, b, vector, vector * TILE_VECTORS, m->groups, tile,
                    sizeof(float) * PANEL);
            if (m->scale)
                from_integers(m, &a, row, count, column, tile);
            const ending e = {m->bias ? m->bias + column : NULL, corner(out, row, column, width),
                              corner(y, row, column, width), corner(z, row, column, width)};
            FOR_UNARY(s->kind, end_tile, tile, count, e)
        }
    }
}
