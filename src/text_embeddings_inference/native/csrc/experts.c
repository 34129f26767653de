/* TEI_EXPERTS: out[M, D] = sum over e of y[M, e] * act(x[M, D] Up_e^T) Down_e^T, for a block of rows. An expert gets the rows
 * whose gate is not 0, put together; each row adds up its experts in their order. */

typedef struct {
    const tei_matrix *up, *down;
} expert;

/* Where the rows of one expert lie: its inputs, what is between its two products, and its results. */
typedef struct {
    rows_of x, between, out;
    char *operand;
} expert_memory;

/* Divides `memory` and returns its size in bytes; memory may be NULL. */
static size_t divide_for_experts(const tei_step *s, char *memory, expert_memory *m)
{
    const expert *first = s->a;
    const size_t width = up_to((size_t)first->up->inputs, 16), inner = up_to((size_t)first->up->outputs, 32);
    const size_t rows = sizeof(float) * BLOCK_ROWS, used = rows * (2 * width + inner);
    const int wide = first->up->groups > first->down->groups ? first->up->groups : first->down->groups;
    const int half = s->half && first->up->outputs % 2 == 0 && (first->down->format == TEI_BF16 || first->down->format == TEI_I8);
    if (memory) {
        m->x = (rows_of){(float *)memory, width, first->up->inputs, 0};
        m->out = (rows_of){(float *)(memory + rows * width), width, first->up->inputs, 0};
        m->between = (rows_of){(float *)(memory + 2 * rows * width), half ? inner / 2 : inner, first->up->outputs, half};
        m->operand = memory + used;
    }
    return used + operand_bytes((size_t)wide);
}

static void step_experts(const tei_task *t)
{
    const tei_step *s = t->step;
    const expert *experts = s->a;
    const rows_of x = rows_in(t, s->x), gates = rows_in(t, s->y), out = rows_in(t, s->out);
    const rows_of none = {NULL, 0, 0, 0};
    expert_memory m = {0};
    divide_for_experts(s, t->scratch, &m);
    const size_t bytes = sizeof(float) * (size_t)x.width;
    for (int r = 0; r < t->last - t->first; r++)
        memset(out.p + (size_t)r * out.stride, 0, bytes);
    for (int e = 0; e < s->count; e++) {
        int chosen[BLOCK_ROWS], rows = 0;
        for (int r = 0; r < t->last - t->first; r++)
            if (gates.p[(size_t)r * gates.stride + (size_t)e] != 0)
                chosen[rows++] = r;
        if (!rows)
            continue;
        for (int i = 0; i < rows; i++)
            memcpy(m.x.p + (size_t)i * m.x.stride, x.p + (size_t)chosen[i] * x.stride, bytes);
        const tei_matrix *up = experts[e].up, *down = experts[e].down;
        multiply_block(up, s->kind, operand_of(up, m.x, rows, 0, m.operand), rows, 0, panels_of(up), m.between, none, none);
        multiply_block(down, TEI_IDENTITY, operand_of(down, m.between, rows, 0, m.operand), rows, 0, panels_of(down), m.out, none, none);
        for (int i = 0; i < rows; i++) {
            float *sum = out.p + (size_t)chosen[i] * out.stride;
            const float *result = m.out.p + (size_t)i * m.out.stride;
            const vf gate = v_set1(gates.p[(size_t)chosen[i] * gates.stride + (size_t)e]);
            EACH_VECTOR(out.width, j, n, store(sum + j, v_fma(gate, load(result + j, n), load(sum + j, n)), n);)
        }
    }
}
