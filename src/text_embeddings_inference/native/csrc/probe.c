/* What a format loses in a product: one panel of it in two formats, from the same rows. */

/* Rows that may be bfloat16 numbers, as floats. */
static rows_of as_floats(rows_of x, int rows, float *out)
{
    if (!x.half)
        return x;
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < x.width; k++)
            out[(size_t)r * (size_t)x.width + (size_t)k] = from_b16(((const uint16_t *)(x.p + (size_t)r * x.stride))[k]);
    return (rows_of){out, (size_t)x.width, x.width, 0};
}

static void probe_product(const tei_task *t, const tei_probe *probe)
{
    if (!probe->rough)
        return;
    const rows_of y = rows_in(t, t->step->y);
    const int rows = t->last - t->first;
    char *scratch = t->scratch + sizeof(float) * BLOCK_ROWS * (size_t)probe->exact->inputs;
    const rows_of x = as_floats(rows_in(t, t->step->x), rows, (float *)t->scratch);
    const tei_matrix *matrices[] = {probe->rough, probe->exact};
    float *const values[] = {probe->rough_values, probe->exact_values};
    for (int i = 0; i < 2; i++) {
        float *out = values[i] + (size_t)t->first * PANEL;
        const rows_of results = {out, PANEL, PANEL, 0}, none = {NULL, 0, 0, 0};
        const operand a = operand_of(matrices[i], x, rows, 0, scratch);
        multiply_block(matrices[i], TEI_IDENTITY, a, rows, 0, 1, results, none, none);
        for (int r = 0; r < rows && y.p; r++)
            for (int j = 0; j < PANEL; j++)
                out[r * PANEL + j] += y.p[(size_t)r * y.stride + (size_t)probe->columns[j]];
    }
}
