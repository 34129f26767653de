/* Steps that know where sequences begin and end, besides attention: one item is one sequence. */

static void step_shift(const tei_task *t, int32_t sequence)
{
    const tei_step *s = t->step;
    const int32_t *starts = t->run->batch->starts;
    const int begin = starts[sequence], end = starts[sequence + 1];
    rows_of x = all_rows_in(t, s->x), out = all_rows_in(t, s->out);
    for (int r = begin; r < end; r++) {
        float *row = out.p + (size_t)r * out.stride;
        const int from = r + s->count;
        if (from >= begin && from < end)
            memcpy(row, x.p + (size_t)from * x.stride, sizeof(float) * (size_t)out.width);
        else
            memset(row, 0, sizeof(float) * (size_t)out.width);
    }
}

/* The rows of x, each multiplied with its weight, added up in the order of the tokens. weight: of row i, base + i * slope. */
static void sum_rows(const float *x, size_t stride, int rows, float base, float slope, float *out, int width)
{
    memset(out, 0, sizeof(float) * (size_t)width);
    for (int r = 0; r < rows; r++, x += stride) {
        const vf weight = v_set1(base + (float)r * slope);
        EACH_VECTOR(width, i, n, store(out + i, v_fma(load(x + i, n), weight, load(out + i, n)), n);)
    }
}

static void largest_rows(const float *x, size_t stride, int rows, float *out, int width)
{
    memcpy(out, x, sizeof(float) * (size_t)width);
    for (int r = 1; r < rows; r++) {
        const float *row = x + (size_t)r * stride;
        EACH_VECTOR(width, i, n, store(out + i, v_max(load(out + i, n), load(row + i, n)), n);)
    }
}

static void scale_row(float *x, float by, int width) { EACH_VECTOR(width, i, n, store(x + i, v_mul(load(x + i, n), v_set1(by)), n);) }

/* ln(1 + relu(x)); twice: and ln(1 + that). NaN stays what it is. */
static float splade_weight(float x, int twice)
{
    if (x < 0)
        return 0;
    const float weight = log1pf(x);
    return twice ? log1pf(weight) : weight;
}

static void step_pool(const tei_task *t, int32_t sequence)
{
    const tei_step *s = t->step;
    const int32_t *starts = t->run->batch->starts;
    const int n = starts[sequence + 1] - starts[sequence];
    rows_of all = all_rows_in(t, s->x), out = all_rows_in(t, s->out);
    const float *x = all.p + (size_t)starts[sequence] * all.stride;
    const int width = out.width;
    float *row = out.p + (size_t)sequence * out.stride;
    switch (s->kind) {
    case TEI_CLS: memcpy(row, x, sizeof(float) * (size_t)width); break;
    case TEI_LAST_TOKEN: memcpy(row, x + (size_t)(n - 1) * all.stride, sizeof(float) * (size_t)width); break;
    case TEI_POOL_MEAN:
        sum_rows(x, all.stride, n, 1, 0, row, width);
        scale_row(row, 1 / (float)n, width);
        break;
    case TEI_MEAN_SQRT:
        sum_rows(x, all.stride, n, 1, 0, row, width);
        scale_row(row, 1 / sqrtf((float)n), width);
        break;
    case TEI_WEIGHTED_MEAN:
        sum_rows(x, all.stride, n, 1, 1, row, width);
        scale_row(row, 2 / ((float)n * (float)(n + 1)), width);
        break;
    case TEI_POOL_MAX: largest_rows(x, all.stride, n, row, width); break;
    case TEI_SPLADE:
    case TEI_SPLADE_LOG1P:
        largest_rows(x, all.stride, n, row, width);
        for (int i = 0; i < width; i++)
            row[i] = splade_weight(row[i], s->kind == TEI_SPLADE_LOG1P);
        break;
    case TEI_SPLADE_SUM:
    case TEI_SPLADE_SUM_LOG1P:
        memset(row, 0, sizeof(float) * (size_t)width);
        for (int r = 0; r < n; r++, x += all.stride)
            for (int i = 0; i < width; i++)
                row[i] += splade_weight(x[i], s->kind == TEI_SPLADE_SUM_LOG1P);
        break;
    }
}
