/* From weights `[N, K]` to the panels of a product, see product.c. Outputs and inputs that only fill up are 0. */

static uint16_t round_to_b16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 64); /* not a number: stays one */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* The weights of PANEL outputs: rows of floats, `stride` apart, whose groups are filled up with zeros. */
typedef struct {
    const tei_matrix *m;
    const float *rows;
    size_t stride;
    size_t output; /* the first one */
} panel_weights;

/* Calls `put` for each place of a panel: `at` of the output `j` of the panel, x is its weight. */
#define EACH_PLACE(w, group, at, j, x, put)                                                     \
    for (size_t g_ = 0, at = 0; g_ < (size_t)(w)->m->groups; g_++)                              \
        for (size_t j = 0; j < PANEL; j++)                                                      \
            for (size_t k_ = g_ * (group); k_ < (g_ + 1) * (group); k_++, at++) {               \
                const float x = (w)->rows[j * (w)->stride + k_];                                \
                put                                                                             \
            }

/* The scale of each output's integers, at most `largest` in size, into `scale`: not a number if one of its weights is none,
 * or infinite. */
static void scale_outputs(const panel_weights *w, float largest, float *scale)
{
    for (size_t j = 0; j < PANEL; j++) {
        const float *row = w->rows + j * w->stride, size = largest_size(row, w->m->inputs);
        vf finite = v_zero();
        EACH_VECTOR(w->m->inputs, i, n, finite = v_fma(load(row + i, n), v_zero(), finite);)
        scale[j] = (size > TINY ? size / largest : 1) + v_sum(finite);
    }
}

/* A weight as an integer of at most `largest` in size; 0 where the scale is not a number. */
INLINE float in_steps(float x, float scale, float largest)
{
    const float steps = rintf(x / scale);
    return steps >= -largest && steps <= largest ? steps : 0;
}

static void pack_i8(const panel_weights *w, int8_t *panel)
{
    float *scale = (float *)w->m->scale + w->output;
    int32_t *sums = (int32_t *)w->m->sums + w->output;
    scale_outputs(w, I8_WEIGHT, scale);
    memset(sums, 0, sizeof(int32_t) * PANEL);
    EACH_PLACE(w, 4, at, j, x, {
        panel[at] = (int8_t)in_steps(x, scale[j], I8_WEIGHT);
        sums[j] += panel[at];
    })
}

#define I16_WEIGHT 2047.0f
/* Returns the square of the largest euclidean norm of an output's weights, as integers. */
static double pack_i16(const panel_weights *w, int16_t *panel)
{
    float *scale = (float *)w->m->scale + w->output;
    scale_outputs(w, I16_WEIGHT, scale);
    double squares[PANEL] = {0}, largest = 1;
    EACH_PLACE(w, 2, at, j, x, {
        panel[at] = (int16_t)in_steps(x, scale[j], I16_WEIGHT);
        squares[j] += (double)panel[at] * panel[at];
    })
    for (size_t j = 0; j < PANEL; j++)
        largest = squares[j] > largest ? squares[j] : largest;
    return largest;
}

/* The rows of the panel's outputs from where they lie, one source below the other. */
static void gather_panel(const tei_source *sources, const panel_weights *w, float *rows)
{
    size_t output = w->output;
    for (size_t j = 0; j < PANEL; j++, output++, rows += w->stride) {
        if (output >= (size_t)w->m->outputs) {
            memset(rows, 0, sizeof(float) * w->stride);
            continue;
        }
        size_t row = output;
        const tei_source *source = sources;
        for (; row >= (size_t)source->rows; source++)
            row -= (size_t)source->rows;
        widen(source->type, (const char *)source->p + (int64_t)row * source->row_stride, source->column_stride,
              w->m->inputs, rows);
    }
}

static void pack_panel(const panel_weights *w, char *panel, double *norm)
{
    switch (w->m->format) {
    case TEI_F32: EACH_PLACE(w, 1, at, j, x, { ((float *)panel)[at] = x; }) break;
    case TEI_F32_B16: EACH_PLACE(w, 1, at, j, x, { ((uint16_t *)panel)[at] = round_to_b16(x); }) break;
    case TEI_BF16: EACH_PLACE(w, 2, at, j, x, { ((uint16_t *)panel)[at] = round_to_b16(x); }) break;
    case TEI_I16: {
        const double squares = pack_i16(w, (int16_t *)panel);
        *norm = squares > *norm ? squares : *norm;
        break;
    }
    case TEI_I8: pack_i8(w, (int8_t *)panel); break;
    }
}

static int32_t pack(const tei_matrix *m, const tei_source *sources, int32_t first, int32_t last, float *norm)
{
    /* An odd number of cache lines: a panel reads a column of rows at a time, which must not all fall into one set. */
    const size_t line = 64 / sizeof(float), stride = (up_to((size_t)m->inputs, line) / line | 1) * line;
    const size_t bytes = (size_t)m->groups * PANEL * (m->format == TEI_F32_B16 ? sizeof(uint16_t) : 4);
    float *rows = calloc(PANEL * stride, sizeof(float));
    if (!rows)
        return ENOMEM;
    double squares = 0;
    for (int32_t p = first; p < last; p++) {
        const panel_weights w = {m, rows, stride, (size_t)p * PANEL};
        gather_panel(sources, &w, rows);
        pack_panel(&w, (char *)m->panels + (size_t)p * bytes, &squares);
    }
    free(rows);
    *norm = (float)(sqrt(squares) * 1.001);
    return 0;
}
