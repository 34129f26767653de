/* TEI_ATTENTION and TEI_DISENTANGLED, without padding: one item is some heads of up to QUERY_ROWS queries of a sequence.
 *
 * The keys of the sequence are arranged once per item, as B of a product: `[S / LANES][H][LANES]`, the values as rows
 * `[S][H]` filled up to whole vectors. TILE_ROWS queries at a time see the keys in blocks of KEY_BLOCK, with a softmax
 * that is corrected from block to block (Milakov & Gimelshein, arXiv:1805.02867): no [S, S] is ever in memory. Blocks
 * are counted from the sequence's first token, so that a sequence's results do not depend on its neighbours. */

#define KEY_BLOCK 384 /* a multiple of every PANEL */
#define LOG2_E 1.44269504088896341f

/* One head of one sequence, as an item's queries see it. */
typedef struct {
    const tei_step *step;
    int length;       /* of the sequence */
    int seen;         /* so many of its first tokens are keys */
    int first;        /* key that is arranged, a multiple of LANES */
    int width, vectors; /* H; vectors of a value */
    const float *by_distance; /* what is added to a score, [key - query + length]; NULL: nothing */
    /* disentangled: */
    const int32_t *rows; /* [query - key + length]: of the tables by distance */
    int n_rows;
    const float *query_scores, *key_scores; /* [TILE_ROWS][n_rows] of these queries, [S][n_rows] of all keys; NULL: none */
} head;

/* Where an item keeps what it arranges. Scores become weights where they are, or, in bfloat16, in `weights`. */
typedef struct {
    float *keys, *values, *queries, *scores, *weights, *sums, *by_distance;
    float *table, *query_scores, *key_scores;
    int32_t *rows;
} attention_memory;

#ifdef HAS_BF16
#define HALF(step) ((step)->half)
#else
#define HALF(step) 0
#endif

static int32_t attention_items(const tei_step *s, const tei_batch *batch)
{
    int32_t chunks = 0;
    for (int b = 0; b < batch->sequences; b++)
        chunks += (batch->starts[b + 1] - batch->starts[b] + QUERY_ROWS - 1) / QUERY_ROWS;
    return chunks * s->key_heads;
}

/* Divides `memory` and returns its size in floats; memory may be NULL. */
static size_t divide(const tei_step *s, int longest, float *memory, attention_memory *m)
{
    const size_t n = up_to((size_t)longest, LANES) + PANEL, width = (size_t)(s->x.width / s->heads);
    const size_t sizes[] = {n * up_to(width, LANES),
                            n * up_to(width, LANES),
                            TILE_ROWS * up_to(width, 2 * LANES),
                            TILE_ROWS * KEY_BLOCK,
                            TILE_ROWS * KEY_BLOCK,
                            TILE_ROWS * up_to(width, LANES),
                            2 * n,
                            up_to((size_t)s->table_rows, LANES) * width,
                            TILE_ROWS * up_to((size_t)s->table_rows, PANEL),
                            n * up_to((size_t)s->table_rows, PANEL) * (s->c != NULL),
                            2 * n};
    float *rows;
    float **const places[] = {&m->keys,        &m->values, &m->queries,      &m->scores,     &m->weights,        &m->sums,
                              &m->by_distance, &m->table,  &m->query_scores, &m->key_scores, &rows};
    size_t used = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        *places[i] = memory ? memory + used : NULL;
        used += up_to(sizes[i] + LANES, 16);
    }
    m->rows = (int32_t *)rows;
    return used;
}

/* One tile of `rows` rows and n vectors. */
#ifdef HAS_BF16
#define ATTENTION_TILE(n, ...)                                                     \
    if (half)                                                                      \
        switch (rows) {                                                            \
            EACH_TILE_ROWS(tile_bf16_of, n, __VA_ARGS__)                           \
        }                                                                          \
    else                                                                           \
        switch (rows) {                                                            \
            EACH_TILE_ROWS(tile_f32_of, n, __VA_ARGS__)                            \
        }
#else
#define ATTENTION_TILE(n, ...)                                                     \
    switch (rows) {                                                                \
        EACH_TILE_ROWS(tile_f32_of, n, __VA_ARGS__)                                \
    }
#endif

/* C[rows, count] = A B for columns arranged in single vectors. a_stride: bytes; stride: floats of a row of C. */
INLINE void multiply(const int half, int rows, const char *a, size_t a_stride, const float *b, int groups, int count, float *c,
                     size_t stride)
{
    (void)half;
    const size_t vector = (size_t)groups * LANES;
    for (int j = 0; j < count;) {
        const int left = (count - j + LANES - 1) / LANES;
        const char *column = (const char *)(b + (size_t)(j / LANES) * vector);
#if TILE_VECTORS == 3
        if (left >= 3) {
            ATTENTION_TILE(3, a, a_stride, column, vector * 4, LANES * 4, groups, c + j, stride * 4)
            j += 3 * LANES;
            continue;
        }
#endif
        if (left >= 2) {
            ATTENTION_TILE(2, a, a_stride, column, vector * 4, LANES * 4, groups, c + j, stride * 4)
            j += 2 * LANES;
        } else {
            ATTENTION_TILE(1, a, a_stride, column, vector * 4, LANES * 4, groups, c + j, stride * 4)
            j += LANES;
        }
    }
}

/* sums = sums * correction + weights V, for `rows` queries and `groups` groups of keys. */
INLINE void add_values(const int half, int rows, const float *weights, const float *values, int vectors, int groups,
                       const float *correction, float *sums)
{
    const size_t stride = (size_t)vectors * LANES, weight_stride = KEY_BLOCK * (half ? sizeof(uint16_t) : sizeof(float));
    const char *a = (const char *)weights;
    float tile[TILE_ROWS * PANEL] __attribute__((aligned(64)));
    for (int j = 0; j < vectors;) {
        const int n = vectors - j == 1 || vectors - j == 3 ? 1 : 2;
        const char *b = (const char *)(values + j * LANES);
        if (n == 2) {
            ATTENTION_TILE(2, a, weight_stride, b, LANES * 4, stride * 4, groups, tile, PANEL * 4)
        } else {
            ATTENTION_TILE(1, a, weight_stride, b, LANES * 4, stride * 4, groups, tile, PANEL * 4)
        }
        for (int i = 0; i < rows; i++)
            for (int k = 0; k < n; k++) {
                float *sum = sums + (size_t)i * stride + (size_t)(j + k) * LANES;
                v_store(sum, v_fma(v_load(sum), v_set1(correction[i]), v_load(tile + i * PANEL + k * LANES)));
            }
        j += n;
    }
}

/* The terms of a disentangled score that know the distance, added to a row of scores: query `i`, keys from `key` on. */
static void add_by_rows(const head *h, int i, int query, int key, int count, float *scores)
{
    for (int j = 0; j < count; j++) {
        const int row = h->rows[query - (key + j) + h->length];
        if (h->query_scores)
            scores[j] += h->query_scores[(size_t)i * up_to((size_t)h->n_rows, PANEL) + (size_t)row];
        if (h->key_scores)
            scores[j] += h->key_scores[(size_t)(key + j) * up_to((size_t)h->n_rows, PANEL) + (size_t)row];
    }
}

/* The keys that a query sees. */
static int first_seen(const head *h, int query)
{
    return h->step->window < 0 || query < h->step->window ? 0 : query - h->step->window;
}
static int last_seen(const head *h, int query)
{
    int last = h->step->causal ? query + 1 : h->step->window < 0 ? h->seen : query + h->step->window + 1;
    return last < h->seen ? last : h->seen;
}

/* Products to bounded scores, in place: cap * tanh(scale * product / cap). */
static void bound_scores(const tei_step *s, int count, float *scores)
{
    const vf inner = v_set1(s->scale / s->cap), cap = v_set1(s->cap);
    for (int j = 0; j < count; j += LANES)
        v_store(scores + j, v_mul(cap, v_tanh(v_mul(v_load(scores + j), inner))));
}

/* A row of products with the keys from `key` on to weights, in place or, `half`, in bfloat16: 2^(score - largest), scores
 * being in units of ln 2. Returns by how much sums so far have to be multiplied; `largest` and `total` are carried from
 * block to block. */
INLINE float weigh(const int half, const head *h, int query, int key, int count, float *scores, float *weights, float *largest,
                   float *total)
{
    const float factor = h->step->cap > 0 ? LOG2_E : h->step->scale * LOG2_E;
    const vf lowest = v_set1(-INFINITY), scale = v_set1(factor);
    const int first = first_seen(h, query) - key, last = last_seen(h, query) - key;
    const float *added = h->by_distance ? h->by_distance + (key - query + h->length) : NULL;
    vf high = lowest;
    for (int j = 0; j < count; j += LANES) {
        vf v = v_load(scores + j);
        if (added)
            v = v_fma(v, scale, v_load(added + j));
        if (first > j || last < j + LANES)
            v = v_keep(v, first - j, last - j, lowest);
        if (added || first > j || last < j + LANES)
            v_store(scores + j, v);
        high = v_max(high, v);
    }
    const float unit = added ? 1 : factor, before = *largest, highest = fmaxf(before, v_largest(high) * unit);
    const vf units = v_set1(unit), base = v_set1(highest == -INFINITY ? 0 : -highest);
    vf sum = v_zero();
    for (int j = 0; j < count; j += LANES) {
        const vf d = v_fma(v_load(scores + j), units, base), weight = half ? v_exp2_rough(d) : v_exp2(d);
        sum = v_add(sum, weight);
#ifdef HAS_BF16
        if (half) {
            v_store_b16((uint16_t *)weights + j, weight);
            continue;
        }
#endif
        v_store(weights + j, weight);
    }
    const float correction = before == -INFINITY ? 0 : exp2f(before - highest);
    *largest = highest;
    *total = *total * correction + v_sum(sum);
    return correction;
}

/* `rows` queries from `query` on: q and out are at the first one. */
INLINE void attend(const int half, const head *h, const attention_memory *m, int query, int rows, rows_of q, rows_of out)
{
    const size_t stride = (size_t)h->vectors * LANES;
    const int groups = half ? (h->width + 1) / 2 : h->width;
    const char *a = (const char *)q.p;
    size_t a_stride = sizeof(float) * q.stride;
#ifdef HAS_BF16
    if (half && !q.half) {
        a = (const char *)m->queries;
        a_stride = sizeof(uint16_t) * up_to((size_t)h->width, 2 * LANES);
        for (int i = 0; i < rows; i++)
            to_bf16(q.p + (size_t)i * q.stride, h->width, (uint16_t *)(a + (size_t)i * a_stride));
    }
#endif
    fetch_rows(q, rows, rows);
    float *weights = half ? m->weights : m->scores;
    float largest[TILE_ROWS], total[TILE_ROWS], correction[TILE_ROWS];
    for (int i = 0; i < rows; i++)
        largest[i] = -INFINITY, total[i] = 0;
    memset(m->sums, 0, sizeof(float) * (size_t)rows * stride);
    const int last = last_seen(h, query + rows - 1);
    for (int key = first_seen(h, query) / LANES * LANES; key < last; key += KEY_BLOCK) {
        const int count = last - key < KEY_BLOCK ? last - key : KEY_BLOCK;
        const size_t at = (size_t)(key - h->first);
        multiply(half, rows, a, a_stride, m->keys + at * (size_t)groups, groups, count, m->scores, KEY_BLOCK);
        for (int i = 0; i < rows; i++) {
            float *scores = m->scores + i * KEY_BLOCK, *row = half ? weights + i * KEY_BLOCK / 2 : scores;
            if (h->rows)
                add_by_rows(h, i, query + i, key, count, scores);
            if (h->step->cap > 0)
                bound_scores(h->step, count, scores);
            correction[i] = weigh(half, h, query + i, key, count, scores, row, largest + i, total + i);
        }
        const float *values = m->values + (half ? at / 2 : at) * stride;
        add_values(half, rows, weights, values, h->vectors, half ? (count + 1) / 2 : count, correction, m->sums);
    }
    for (int i = 0; i < rows; i++, out.p += out.stride) {
        const vf share = v_set1(total[i] == 0 ? 0 : 1 / total[i]); /* 0: it sees no key */
        EACH_VECTOR(h->width, j, n, vf v = v_mul(v_load(m->sums + (size_t)i * stride + j), share);
                    if (out.half) store_b16((uint16_t *)out.p + j, v, n); else store(out.p + j, v, n);)
    }
}

/* The bias and the slope of a head by distance, from -length to length, in units of ln 2. */
static const float *fill_by_distance(const tei_step *s, int number, int length, float *out)
{
    const float *bias = s->a, *slopes = s->b;
    if (!bias && !slopes)
        return NULL;
    for (int d = -length; d <= length; d++) {
        const int near = d < -s->reach ? -s->reach : d > s->reach ? s->reach : d;
        const float added = bias ? bias[(size_t)(near + s->reach) * (size_t)s->heads + (size_t)number] : 0;
        out[d + length] = LOG2_E * (slopes ? added - slopes[number] * (float)abs(d) : added);
    }
    return out;
}

/* The products of `rows` rows with all rows of a table `[P, H]` arranged as columns. */
static void multiply_rows(int rows, rows_of x, const float *table, int table_rows, float *out)
{
    multiply(0, rows, (const char *)x.p, sizeof(float) * x.stride, table, x.width, table_rows, out, up_to((size_t)table_rows, PANEL));
}

/* What a head of a disentangled step needs besides: rows by distance, and the scores of all keys by row. */
static void prepare_rows(head *h, const attention_memory *m, const rows_of *keys, int number)
{
    const tei_step *s = h->step;
    const int32_t *rows = s->a;
    for (int d = -h->length; d <= h->length; d++)
        m->rows[d + h->length] = rows[s->reach + (d < -s->reach ? -s->reach : d > s->reach ? s->reach : d)];
    h->rows = m->rows;
    h->n_rows = s->table_rows;
    const size_t stride = (size_t)(s->heads * h->width), columns = up_to((size_t)h->n_rows, PANEL);
    if (s->c) {
        arrange_columns(0, (rows_of){(float *)s->c + number * h->width, stride, h->width, 0}, 0, h->n_rows, h->width, m->table);
        for (int r = 0; r < h->seen; r += TILE_ROWS)
            multiply_rows(h->seen - r < TILE_ROWS ? h->seen - r : TILE_ROWS, corner(*keys, r, 0, h->width), m->table, h->n_rows,
                          m->key_scores + (size_t)r * columns);
        h->key_scores = m->key_scores;
    }
    if (s->b) {
        arrange_columns(0, (rows_of){(float *)s->b + number * h->width, stride, h->width, 0}, 0, h->n_rows, h->width, m->table);
        h->query_scores = m->query_scores;
    }
}

/* One item, with products in float32 or, `half`, in bfloat16. */
INLINE void attend_item(const int half, const tei_task *t, head *h, const attention_memory *m, int item)
{
    const tei_step *s = t->step;
    const int32_t *chunk = t->run->chunks + 2 * (item / s->key_heads);
    const int key_head = item % s->key_heads, group = s->heads / s->key_heads, begin = t->run->batch->starts[chunk[0]];
    const int end = chunk[1] + QUERY_ROWS < h->length ? chunk[1] + QUERY_ROWS : h->length;
    h->first = first_seen(h, chunk[1]) / LANES * LANES;
    const int last = last_seen(h, end - 1);
    const rows_of q = all_rows_in(t, s->x), k = all_rows_in(t, s->y), v = all_rows_in(t, s->z), out = all_rows_in(t, s->out);
    const rows_of keys = corner(k, begin, key_head * h->width, h->width);
    arrange_columns(half, keys, h->first, last, h->width, m->keys);
    arrange_values(half, corner(v, begin, key_head * h->width, h->width), h->first, last, h->width, m->values);
    for (int number = key_head * group; number < (key_head + 1) * group; number++) {
        if (s->op == TEI_DISENTANGLED)
            prepare_rows(h, m, &keys, number);
        else
            h->by_distance = fill_by_distance(s, number, h->length, m->by_distance);
        for (int query = chunk[1]; query < end; query += TILE_ROWS) {
            const int rows = end - query < TILE_ROWS ? end - query : TILE_ROWS;
            const rows_of at = corner(q, begin + query, number * h->width, h->width);
            if (h->query_scores)
                multiply_rows(rows, at, m->table, h->n_rows, m->query_scores);
            attend(half, h, m, query, rows, at, corner(out, begin + query, number * h->width, h->width));
        }
    }
}

static void step_attention(const tei_task *t, int32_t item)
{
    const tei_step *s = t->step;
    const tei_batch *batch = t->run->batch;
    const int sequence = t->run->chunks[2 * (item / s->key_heads)];
    attention_memory m;
    divide(s, batch->longest, (float *)t->scratch, &m);
    head h = {.step = s, .length = batch->starts[sequence + 1] - batch->starts[sequence], .width = s->x.width / s->heads};
    h.seen = batch->attended ? batch->attended[sequence] : h.length;
    h.vectors = (h.width + LANES - 1) / LANES;
    if (HALF(s))
        attend_item(1, t, &h, &m, item);
    else
        attend_item(0, t, &h, &m, item);
}
