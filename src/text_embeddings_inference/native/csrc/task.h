/* From the views of a step to the rows they mean. Included by every kernel of a level. */

/* Rows of floats: `width` of them, each `stride` after the one before. */
typedef struct {
    float *p;
    size_t stride;
    int width;
} rows_of;

/* The rows of the task in a view, the task's first one first; p is NULL for no view. */
INLINE rows_of rows_in(const tei_task *t, tei_view view)
{
    if (view.buffer < 0)
        return (rows_of){NULL, 0, 0};
    const tei_buffer *buffer = &t->run->plan->buffers[view.buffer];
    size_t stride = (size_t)buffer->width;
    if (buffer->place == TEI_LOCAL) {
        float *base = t->local + (size_t)buffer->offset * BLOCK_ROWS;
        return (rows_of){base + (size_t)(t->first - t->block) * stride + view.column, stride, view.width};
    }
    return (rows_of){t->run->bases[view.buffer] + (size_t)t->first * stride + view.column, stride, view.width};
}

/* All rows of a view that is not TEI_LOCAL. */
INLINE rows_of all_rows_in(const tei_task *t, tei_view view)
{
    size_t stride = (size_t)t->run->plan->buffers[view.buffer].width;
    return (rows_of){t->run->bases[view.buffer] + view.column, stride, view.width};
}

INLINE size_t up_to(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }
