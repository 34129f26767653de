/* From the views of a step to the rows they mean. Included by every kernel of a level. */

/* Rows of `width` numbers, each `stride` floats after the one before: floats, or, `half`, bfloat16 numbers, which only
 * products and attention take. */
typedef struct {
    float *p;
    size_t stride;
    int width, half;
} rows_of;

/* The place `column` numbers further. */
INLINE float *column_of(float *p, int half, int column) { return half ? (float *)((uint16_t *)p + column) : p + column; }

/* The rows of the task in a view, the task's first one first; p is NULL for no view. */
INLINE rows_of rows_in(const tei_task *t, tei_view view)
{
    if (view.buffer < 0)
        return (rows_of){NULL, 0, 0, 0};
    const tei_buffer *buffer = &t->run->plan->buffers[view.buffer];
    size_t stride = (size_t)buffer->width;
    if (buffer->place == TEI_LOCAL) {
        float *base = t->local + (size_t)buffer->offset * BLOCK_ROWS;
        float *row = base + (size_t)(t->first - t->block) * stride;
        return (rows_of){column_of(row, buffer->half, view.column), stride, view.width, buffer->half};
    }
    float *row = t->run->bases[view.buffer] + (size_t)t->first * stride;
    return (rows_of){column_of(row, buffer->half, view.column), stride, view.width, buffer->half};
}

/* All rows of a view that is not TEI_LOCAL. */
INLINE rows_of all_rows_in(const tei_task *t, tei_view view)
{
    const tei_buffer *buffer = &t->run->plan->buffers[view.buffer];
    float *first = column_of(t->run->bases[view.buffer], buffer->half, view.column);
    return (rows_of){first, (size_t)buffer->width, view.width, buffer->half};
}

/* The rows from `row` on, from `column` on. */
INLINE rows_of corner(rows_of x, int row, int column, int width)
{
    return (rows_of){x.p ? column_of(x.p + (size_t)row * x.stride, x.half, column) : NULL, x.stride, width, x.half};
}

INLINE size_t up_to(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }
