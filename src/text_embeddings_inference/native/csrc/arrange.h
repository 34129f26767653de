/* Keys and values of attention as B of its products: columns `[n / LANES][groups][LANES]`, and rows. */

#define HALF_WIDTH 64  /* numbers of a row that are rounded at once */

/* Fetches `count` rows from the row `from` on into the first cache: a head's rows lie far apart, which the CPU does not
 * foresee. */
INLINE void fetch_rows(rows_of x, int from, int count)
{
    for (int i = 0; i < count; i++)
        for (int j = 0; j < x.width; j += 16 << x.half)
            __builtin_prefetch(column_of(x.p + (size_t)(from + i) * x.stride, x.half, j));
}

/* `count` rows of `groups` 4-byte groups as columns: `[groups][LANES]` for up to LANES rows, zeros at the end. */
static void arrange_vector(const char *rows, size_t stride, int count, int groups, float *out)
{
    int g = 0;
    if (count == LANES)
        for (; g + LANES <= groups; g += LANES)
            v_transpose(rows + 4 * g, stride, out + g * LANES);
    for (; g < groups; g++)
        for (int lane = 0; lane < LANES; lane++) {
            float *place = out + g * LANES + lane;
            if (lane < count)
                memcpy(place, rows + (size_t)lane * stride + 4 * g, 4);
            else
                *place = 0;
        }
}

/* Rows from `first` to before `last` as columns: `[n / LANES][groups][LANES]`, a group being a float or, `half`, two
 * bfloat16 numbers. */
INLINE void arrange_columns(const int half, rows_of x, int first, int last, int width, float *out)
{
    const int groups = half ? (width + 1) / 2 : width;
    for (int r = first; r < last; r += LANES, out += (size_t)groups * LANES) {
        const int count = last - r < LANES ? last - r : LANES;
        const float *row = x.p + (size_t)r * x.stride;
        fetch_rows(x, r + LANES, LANES);
#ifdef HAS_BF16
        if (x.half) {
            arrange_vector((const char *)row, sizeof(float) * x.stride, count, groups, out);
            continue;
        }
        if (half) {
            uint16_t rounded[LANES][HALF_WIDTH];
            const size_t stride = sizeof rounded[0];
            for (int part = 0; part < groups; part += HALF_WIDTH / 2) {
                const int n = groups - part < HALF_WIDTH / 2 ? groups - part : HALF_WIDTH / 2;
                for (int i = 0; i < count; i++)
                    to_bf16(row + (size_t)i * x.stride + 2 * part, width - 2 * part < HALF_WIDTH ? width - 2 * part : HALF_WIDTH, rounded[i]);
                arrange_vector((const char *)rounded, stride, count, n, out + part * LANES);
            }
            continue;
        }
#endif
        arrange_vector((const char *)row, sizeof(float) * x.stride, count, groups, out);
    }
}

/* Values as they are multiplied: `[S][H]`, or, `half`, pairs of rows `[S / 2][H][2]`; H filled up to whole vectors. */
INLINE void arrange_values(const int half, rows_of x, int first, int last, int width, float *out)
{
    const size_t stride = up_to((size_t)width, LANES);
    for (int r = first; r < last; r += 1 + half, out += stride) {
        const float *row = x.p + (size_t)r * x.stride;
        fetch_rows(x, r + LANES, 1 + half);
#ifdef HAS_BF16
        if (x.half) {
            const uint16_t *low = (const uint16_t *)row, *high = r + 1 < last ? (const uint16_t *)(row + x.stride) : NULL;
            for (int i = 0; i < width; i += LANES)
                vi_store(out + i, high ? v_pairs_of_b16(low + i, high + i) : v_pairs_b16(v_load_b16(low + i), v_zero()));
            continue;
        }
        if (half) {
            const float *next = row + x.stride;
            EACH_VECTOR(width, i, n, vi_store(out + i, v_pairs_b16(load(row + i, n), r + 1 < last ? load(next + i, n) : v_zero()));)
            continue;
        }
#endif
        EACH_VECTOR(width, i, n, v_store(out + i, load(row + i, n));)
    }
}
