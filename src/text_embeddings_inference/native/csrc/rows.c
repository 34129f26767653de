/* Steps that take each row by itself: what comes before, between and after the products. A row of `heads` vectors of
 * width H is taken vector by vector. Sums of a vector run over lanes first, in one order whatever is around it. */

/* f for each whole vector of n floats and, with the count of what is left, for the last one. */
#define EACH_VECTOR(n, i, left, body)                    \
    for (int i = 0; i < (n); i += LANES) {               \
        const int left = (n) - i < LANES ? (n) - i : LANES; \
        body                                             \
    }

INLINE vf load(const float *p, int n) { return n == LANES ? v_load(p) : v_load_n(p, n); }
INLINE void store(float *p, vf v, int n)
{
    if (n == LANES)
        v_store(p, v);
    else
        v_store_n(p, v, n);
}

static void step_embed(const tei_task *t)
{
    const tei_step *s = t->step;
    const tei_batch *batch = t->run->batch;
    const int32_t *ids = s->kind == TEI_INPUT_IDS ? batch->ids : s->kind == TEI_TYPE_IDS ? batch->types : t->run->positions;
    rows_of out = rows_in(t, s->out), y = rows_in(t, s->y);
    const size_t number = bytes_of(s->table);
    for (int r = t->first; r < t->last; r++, out.p += out.stride, y.p += y.stride) {
        const char *row = (const char *)s->a + (size_t)(ids ? ids[r] : 0) * (size_t)out.width * number;
        if (!y.p) {
            widen(s->table, row, (int64_t)number, out.width, out.p);
            continue;
        }
        EACH_VECTOR(out.width, i, n, {
            float wide[LANES]; /* y may lie where the result goes */
            widen(s->table, row + (size_t)i * number, (int64_t)number, n, wide);
            store(out.p + i, v_add(load(wide, n), load(y.p + i, n)), n);
        })
    }
}

INLINE void unary_rows(const int kind, rows_of x, rows_of out, int rows)
{
    for (int r = 0; r < rows; r++, x.p += x.stride, out.p += out.stride)
        EACH_VECTOR(out.width, i, n, store(out.p + i, v_unary(kind, load(x.p + i, n)), n);)
}

/* Of rare use: by the C library, number by number. */
static void unary_slow(float (*f)(float), rows_of x, rows_of out, int rows)
{
    for (int r = 0; r < rows; r++, x.p += x.stride, out.p += out.stride)
        for (int i = 0; i < out.width; i++)
            out.p[i] = f(x.p[i]);
}

static void step_unary(const tei_task *t)
{
    const tei_step *s = t->step;
    rows_of x = rows_in(t, s->x), out = rows_in(t, s->out);
    int rows = t->last - t->first;
    if (s->kind == TEI_EXP)
        unary_slow(expf, x, out, rows);
    else if (s->kind == TEI_LOG1P)
        unary_slow(log1pf, x, out, rows);
    else
        FOR_UNARY(s->kind, unary_rows, x, out, rows)
}

INLINE vf v_binary(const int kind, vf x, vf y)
{
    switch (kind) {
    case TEI_ADD: return v_add(x, y);
    case TEI_SUB: return v_sub(x, y);
    case TEI_MUL: return v_mul(x, y);
    default: return v_div(x, y);
    }
}

/* y: a vector, or one number for the whole of x (step 0). */
INLINE void binary_vector(const int kind, const float *x, const float *y, const int step, float *out, int width)
{
    if (step)
        EACH_VECTOR(width, i, n, store(out + i, v_binary(kind, load(x + i, n), load(y + i, n)), n);)
    else
        EACH_VECTOR(width, i, n, store(out + i, v_binary(kind, load(x + i, n), v_set1(*y)), n);)
}

static void step_binary(const tei_task *t)
{
    const tei_step *s = t->step;
    rows_of x = rows_in(t, s->x), out = rows_in(t, s->out), y = rows_in(t, s->y);
    if (!y.p)
        y.p = (float *)s->a; /* the same for every row: only read */
    int width = out.width / s->heads;
    for (int r = t->first; r < t->last; r++, x.p += x.stride, y.p += y.stride, out.p += out.stride)
        for (int h = 0; h < s->heads; h++) {
            const float *xh = x.p + (size_t)h * (size_t)width, *yh = y.p + (size_t)h * (size_t)s->y_head_stride;
            float *oh = out.p + (size_t)h * (size_t)width;
            switch (s->kind) {
            case TEI_ADD: binary_vector(TEI_ADD, xh, yh, s->y_step, oh, width); break;
            case TEI_SUB: binary_vector(TEI_SUB, xh, yh, s->y_step, oh, width); break;
            case TEI_MUL: binary_vector(TEI_MUL, xh, yh, s->y_step, oh, width); break;
            default: binary_vector(TEI_DIV, xh, yh, s->y_step, oh, width); break;
            }
        }
}

static float sum_of(const float *x, int width)
{
    vf sum = v_zero();
    EACH_VECTOR(width, i, n, sum = v_add(sum, load(x + i, n));)
    return v_sum(sum);
}

static float sum_of_squares(const float *x, int width)
{
    vf sum = v_zero();
    EACH_VECTOR(width, i, n, vf v = load(x + i, n); sum = v_fma(v, v, sum);)
    return v_sum(sum);
}

static float largest_of(const float *x, int width)
{
    const vf lowest = v_set1(-INFINITY);
    vf largest = lowest;
    EACH_VECTOR(width, i, n, largest = v_max(largest, v_keep(load(x + i, n), 0, n, lowest));)
    return v_largest(largest);
}

static void softmax_of(const float *x, float *out, int width)
{
    const vf largest = v_set1(largest_of(x, width));
    vf sum = v_zero();
    EACH_VECTOR(width, i, n, vf e = v_keep(v_exp(v_sub(load(x + i, n), largest)), 0, n, v_zero()); sum = v_add(sum, e);
                store(out + i, e, n);)
    const vf share = v_set1(1 / v_sum(sum));
    EACH_VECTOR(width, i, n, store(out + i, v_mul(load(out + i, n), share), n);)
}

/* Calls `body` for each vector of the task: `x` of `width`, number `h` of its row, and the row `o` of the result. */
#define EACH_HEAD(t, x, o, width, h, body)                                                                 \
    do {                                                                                                   \
        rows_of rx_ = rows_in(t, (t)->step->x), ro_ = rows_in(t, (t)->step->out);                          \
        const int width = rx_.width / (t)->step->heads;                                                    \
        for (int r_ = (t)->first; r_ < (t)->last; r_++, rx_.p += rx_.stride, ro_.p += ro_.stride)          \
            for (int h = 0; h < (t)->step->heads; h++) {                                                   \
                const float *x = rx_.p + (size_t)h * (size_t)width;                                        \
                float *o = ro_.p;                                                                          \
                body                                                                                       \
            }                                                                                              \
    } while (0)

static void step_reduce(const tei_task *t)
{
    const int kind = t->step->kind;
    EACH_HEAD(t, x, o, width, h, {
        switch (kind) {
        case TEI_SUM: o[h] = sum_of(x, width); break;
        case TEI_MEAN: o[h] = sum_of(x, width) / (float)width; break;
        case TEI_LARGEST: o[h] = largest_of(x, width); break;
        default: softmax_of(x, o + (size_t)h * (size_t)width, width); break;
        }
    });
}

/* Of equal numbers the earlier ones are kept. A number's rank is counted: for the few experts of a router, not more. */
static void step_keep_largest(const tei_task *t)
{
    const int k = t->step->count;
    EACH_HEAD(t, x, o, width, h, {
        float *out = o + (size_t)h * (size_t)width;
        for (int i = 0; i < width; i++) {
            int rank = 0;
            for (int j = 0; j < width; j++)
                rank += x[j] > x[i] || (x[j] == x[i] && j < i);
            out[i] = rank < k ? x[i] : 0;
        }
    });
}

/* In two passes, as the sum of squares of a row far from 0 says nothing of its variance. */
static void step_layer_norm(const tei_task *t)
{
    const float *weight = t->step->a, *bias = t->step->b, eps = t->step->eps;
    EACH_HEAD(t, x, o, width, h, {
        float *out = o + (size_t)h * (size_t)width;
        const vf mean = v_set1(sum_of(x, width) / (float)width);
        vf squares = v_zero();
        EACH_VECTOR(width, i, n, vf d = v_keep(v_sub(load(x + i, n), mean), 0, n, v_zero()); squares = v_fma(d, d, squares);)
        const vf scale = v_set1(1 / sqrtf(v_sum(squares) / (float)width + eps));
        EACH_VECTOR(width, i, n, vf y = v_mul(v_mul(v_sub(load(x + i, n), mean), scale), load(weight + i, n));
                    store(out + i, bias ? v_add(y, load(bias + i, n)) : y, n);)
    });
}

INLINE void scale_vector(const float *x, float scale, const float *weight, float *out, int width)
{
    const vf s = v_set1(scale);
    EACH_VECTOR(width, i, n, vf y = v_mul(load(x + i, n), s); store(out + i, weight ? v_mul(y, load(weight + i, n)) : y, n);)
}

static void step_rms_norm(const tei_task *t)
{
    const float *weight = t->step->a, eps = t->step->eps;
    EACH_HEAD(t, x, o, width, h,
              { scale_vector(x, 1 / sqrtf(sum_of_squares(x, width) / (float)width + eps), weight, o + (size_t)h * (size_t)width, width); });
}

static void step_l2_norm(const tei_task *t)
{
    EACH_HEAD(t, x, o, width, h,
              { scale_vector(x, 1 / sqrtf(sum_of_squares(x, width)), NULL, o + (size_t)h * (size_t)width, width); });
}

static void step_copy(const tei_task *t)
{
    rows_of x = rows_in(t, t->step->x), out = rows_in(t, t->step->out);
    for (int r = t->first; r < t->last; r++, x.p += x.stride, out.p += out.stride)
        memcpy(out.p, x.p, sizeof(float) * (size_t)out.width);
}

/* Channels i and i + pairs of a vector turn as a pair (Su et al., arXiv:2104.09864). In place, or from x to out. */
INLINE void rotate(const float *x, const float *cosine, const float *sine, float *out, int pairs, int width)
{
    EACH_VECTOR(pairs, i, n, {
        vf a = load(x + i, n);
        vf b = load(x + pairs + i, n);
        vf c = load(cosine + i, n);
        vf s = load(sine + i, n);
        store(out + i, v_sub(v_mul(a, c), v_mul(b, s)), n);
        store(out + pairs + i, v_add(v_mul(b, c), v_mul(a, s)), n);
    })
    if (out != x)
        memcpy(out + 2 * pairs, x + 2 * pairs, sizeof(float) * (size_t)(width - 2 * pairs));
}

static void step_rope(const tei_task *t)
{
    const tei_step *s = t->step;
    const int pairs = s->count, width = s->x.width / s->heads;
    const tei_batch *batch = t->run->batch;
    const float *own = s->by_length ? batch->rotations[s->by_length - 1] : NULL;
    const float *cosines = own ? own : s->a, *sines = own ? own + (size_t)batch->tokens * (size_t)pairs : s->b;
    rows_of x = rows_in(t, s->x), out = rows_in(t, s->out);
    for (int r = t->first; r < t->last; r++, x.p += x.stride, out.p += out.stride) {
        const size_t row = (size_t)(own ? r : t->run->positions[r]) * (size_t)pairs;
        for (int h = 0; h < s->heads; h++)
            rotate(x.p + h * width, cosines + row, sines + row, out.p + h * width, pairs, width);
    }
}
