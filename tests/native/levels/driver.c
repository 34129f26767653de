/* Compares levels with the plain kernels, step by step on random rows: `driver LEVEL...` runs those levels, whatever the
 * CPU says of itself, prints the largest difference of each kind of step and fails where one is over its tolerance.
 *
 * The plain kernels themselves are compared with NumPy (tests/native). For levels that run in emulation: scripts/levels.py
 * compiles this file with them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "level.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
#define MAX_SEQUENCES 4
#define TABLE_ROWS 24 /* disentangled: rows of the tables by distance */

static const char *const format_names[TEI_FORMATS] = {"f32", "f32_b16", "bf16", "i16", "i8"};
/* Of products, in units of |x| |w| / sqrt K: rounding errors of K numbers partly cancel, one number that is left out
 * would be an error of about 1. */
static const float format_tolerances[TEI_FORMATS] = {1e-5f, 3e-2f, 3e-2f, 4e-3f, 6e-2f};
#define CLOSE_HOSTILE (1 / 256.0f) /* of products of rows with the largest sums, in units of |x| |w| */
#define CLOSE 1e-5f      /* of other steps, in units of 1 + |result| */
#define CLOSE_HALF 3e-2f /* of attention in bfloat16 */

static const tei_level *plain;

static void *memory(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 128) / 64 * 64);
    if (!p)
        exit(2);
    return memset(p, 0, (bytes + 128) / 64 * 64);
}

static uint64_t seed;
static float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(seed >> 40) / (float)(1 << 24);
}
/* About normal numbers: a sum of uniform ones. */
static float *random_rows(int rows, int width, float size)
{
    float *x = memory(sizeof(float) * (size_t)rows * (size_t)width);
    for (int i = 0; i < rows * width; i++)
        x[i] = (uniform() + uniform() + uniform() + uniform() - 2) * 1.7f * size;
    return x;
}

/* One step on inputs `[T, width]`, each NULL where the step has none. */
typedef struct {
    tei_step step;
    const float *x, *y, *z;
    int x_width, y_width, z_width, out_width;
    const float *weights, *bias; /* of a product [out_width, x_width] */
    int sequences, starts[MAX_SEQUENCES + 1], attended[MAX_SEQUENCES];
    int of_sequences; /* the result has rows for sequences */
    const float *through; /* NULL, or weights [width, width]: inputs are multiplied with them, and the results kept in bfloat16 if they can */
} trial;

static int tokens_of(const trial *t) { return t->starts[t->sequences]; }

/* Packed weights [outputs, inputs]. bias: NULL for none. */
static tei_matrix packed(const tei_level *level, const float *weights, const float *bias, int inputs, int outputs, int format)
{
    const int group = level->groups[format], panels = (outputs + level->panel - 1) / level->panel, filled = panels * level->panel;
    tei_matrix m = {.format = format, .inputs = inputs, .outputs = outputs, .groups = (inputs + group - 1) / group};
    m.panels = memory(4 * (size_t)filled * (size_t)m.groups);
    m.scale = memory(sizeof(float) * (size_t)filled);
    m.sums = memory(sizeof(int32_t) * (size_t)filled);
    if (bias) {
        m.bias = memory(sizeof(float) * (size_t)filled);
        memcpy((float *)m.bias, bias, sizeof(float) * (size_t)outputs);
    }
    const tei_source source = {weights, (int64_t)sizeof(float) * inputs, sizeof(float), TEI_NUMBER_F32, outputs};
    if (tei_pack(level, &m, &source, 0, panels, &m.norm))
        exit(2);
    return m;
}

static void free_matrix(tei_matrix *m)
{
    free((void *)m->panels);
    free((void *)m->scale);
    free((void *)m->sums);
    free((void *)m->bias);
}

/* A plan while it is made. */
typedef struct {
    const tei_level *level;
    tei_step steps[7];
    tei_stage stages[7];
    tei_buffer buffers[7];
    tei_matrix matrices[4];
    int count, matrix_count, width;
} sketch;

/* Adds a step of tokens with a buffer of its own for the result. */
static tei_view add_step(sketch *s, tei_step step, int place, int width, int half)
{
    const int n = s->count++, floats = half ? (width + 1) / 2 : width;
    step.out = (tei_view){n, 0, width};
    s->buffers[n] = (tei_buffer){place, TEI_TOKENS, floats, s->width, half};
    s->steps[n] = step;
    s->stages[n] = (tei_stage){n, 1, step.op <= TEI_LAST_ROWWISE, TEI_TOKENS};
    s->width += floats;
    return step.out;
}

static const tei_view none = {-1, 0, 0};

static tei_step product_of(sketch *s, tei_step step, tei_matrix m)
{
    s->matrices[s->matrix_count] = m;
    step.a = s->matrices + s->matrix_count++;
    return step;
}

static tei_view add_input(sketch *s, const trial *t, const float *values, int width)
{
    if (!values)
        return none;
    const tei_step look_up = {.op = TEI_EMBED, .kind = TEI_INPUT_IDS, .heads = 1, .x = none, .y = none, .z = none, .a = values};
    const tei_view view = add_step(s, look_up, TEI_ARENA, width, 0);
    if (!t->through)
        return view;
    const int half = s->level->groups[TEI_BF16] > 0;
    const tei_step multiply = {.op = TEI_LINEAR, .heads = 1, .x = view, .y = none, .z = none};
    return add_step(s, product_of(s, multiply, packed(s->level, t->through, NULL, width, width, TEI_F32)), TEI_ARENA, width, half);
}

/* What the step gives at a level, rows of `out_width`. format: of a product. */
static float *result_of(const tei_level *level, const trial *t, int format, int threads)
{
    sketch s = {.level = level};
    const int tokens = tokens_of(t);
    tei_step step = t->step;
    step.x = add_input(&s, t, t->x, t->x_width);
    step.y = add_input(&s, t, t->y, t->y_width);
    step.z = add_input(&s, t, t->z, t->z_width);
    if (step.op == TEI_LINEAR)
        step = product_of(&s, step, packed(level, t->weights, t->bias, t->x_width, t->out_width, format));
    add_step(&s, step, t->of_sequences ? TEI_POOLED : TEI_HIDDEN, t->out_width, 0);
    if (t->of_sequences)
        s.buffers[s.count - 1].rows = TEI_SEQUENCES, s.buffers[s.count - 1].offset = 0;
    const tei_plan plan = {s.steps, s.stages, s.buffers, s.count, s.count, s.count, {s.width, t->out_width}, 0};
    float *out = memory(sizeof(float) * (size_t)tokens * (size_t)t->out_width);
    int32_t *ids = memory(sizeof(int32_t) * (size_t)tokens);
    int longest = 0;
    for (int i = 0; i < tokens; i++)
        ids[i] = i;
    for (int b = 0; b < t->sequences; b++)
        longest = t->starts[b + 1] - t->starts[b] > longest ? t->starts[b + 1] - t->starts[b] : longest;
    const tei_batch batch = {.tokens = tokens, .sequences = t->sequences, .longest = longest, .ids = ids, .starts = t->starts,
                             .attended = t->attended[0] ? t->attended : NULL, .pooled = out, .hidden = out};
    tei_engine *engine = tei_open(level, &plan);
    tei_team *team = threads > 1 ? tei_team_new(threads) : NULL;
    if (!engine || (threads > 1 && !team) || tei_run(engine, &batch, team))
        exit(2);
    tei_team_free(team);
    tei_close(engine);
    free(ids);
    for (int i = 0; i < s.matrix_count; i++)
        free_matrix(s.matrices + i);
    return out;
}

/* The largest differences so far of what is tested now. */
typedef struct {
    char what[64];
    float worst, tolerance;
    int cases, failed;
} tally;

static int failures;

static void begin(tally *y, const char *level, const char *what, const char *detail, float tolerance)
{
    *y = (tally){.tolerance = tolerance};
    snprintf(y->what, sizeof y->what, "%-12s %s%s", level, what, detail);
}

static void note(tally *y, float difference)
{
    y->cases++;
    if (!(difference <= y->worst))
        y->worst = difference;
    y->failed |= !(difference <= y->tolerance);
}

static void end(const tally *y)
{
    printf("%-44s %5d cases, largest difference %.2g%s\n", y->what, y->cases, (double)y->worst, y->failed ? "  TOO LARGE" : "");
    failures += y->failed;
}

static float norm_of(const float *x, int n)
{
    float sum = 1e-30f;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrtf(sum);
}

/* |x| |w| / sqrt K */
static float size_of(const float *x, const float *w, int n) { return norm_of(x, n) * norm_of(w, n) / sqrtf((float)n); }

/* The largest difference of two results in units of 1 + |result|; not a number has to be one in both. */
static float difference(const float *found, const float *exact, size_t n)
{
    float worst = 0;
    for (size_t i = 0; i < n; i++) {
        const float d = exact[i] == found[i] || (isnan(exact[i]) && isnan(found[i])) ? 0 : fabsf(found[i] - exact[i]) / (1 + fabsf(exact[i]));
        if (!(d <= worst))
            worst = isnan(d) ? INFINITY : d;
    }
    return worst;
}

static trial product(int rows, int inputs, int outputs)
{
    seed = (uint64_t)(rows * 1000003 + inputs * 1009 + outputs);
    return (trial){.step = {.op = TEI_LINEAR, .heads = 1}, .x = random_rows(rows, inputs, 1), .x_width = inputs, .out_width = outputs,
                   .weights = random_rows(outputs, inputs, 1), .sequences = 1, .starts = {0, rows}};
}

static void free_trial(const trial *t)
{
    const void *all[] = {t->x, t->y, t->z, t->weights, t->bias, t->through, t->step.b, t->step.c};
    for (int i = 0; i < COUNT(all); i++)
        free((void *)all[i]);
    if (t->step.op != TEI_LINEAR)
        free((void *)t->step.a);
}

static const int row_counts[] = {1, 7, 8, 9, 31, 33, 63, 64, 65};
static const int sizes[][2] = {{1, 1}, {3, 50}, {47, 49}, {64, 96}, {97, 7}, {200, 131}, {384, 53}, {301, 48}};

/* Its input comes from another product. */
static void check_chain(tally *y, const tei_level *level, int format, int rows, int width, int outputs)
{
    trial t = product(rows, width, outputs);
    t.through = random_rows(width, width, 1 / sqrtf((float)width));
    for (int i = 0; i < width * outputs; i++)
        ((float *)t.weights)[i] /= sqrtf((float)width);
    float *exact = result_of(plain, &t, TEI_F32, 1), *found = result_of(level, &t, format, 1);
    note(y, difference(found, exact, (size_t)rows * (size_t)outputs));
    free(exact);
    free(found);
    free_trial(&t);
}

/* The product is near the exact one, the same to the bit on three threads, and each row alone the same as among others. */
static void check_product(tally *y, const tei_level *level, int format, int rows, int inputs, int outputs)
{
    const trial t = product(rows, inputs, outputs);
    float *exact = result_of(plain, &t, TEI_F32, 1), *found = result_of(level, &t, format, 1), *shared = result_of(level, &t, format, 3);
    float worst = memcmp(found, shared, sizeof(float) * (size_t)(rows * outputs)) ? INFINITY : 0;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < outputs; j++) {
            const float size = size_of(t.x + i * inputs, t.weights + j * inputs, inputs);
            const float d = fabsf(found[i * outputs + j] - exact[i * outputs + j]) / size;
            worst = d <= worst ? worst : d;
        }
    trial alone = t;
    alone.starts[1] = 1;
    for (int i = 0; i < rows; i += 1 + rows / 4) {
        alone.x = t.x + i * inputs;
        float *row = result_of(level, &alone, format, 1);
        if (memcmp(row, found + i * outputs, sizeof(float) * (size_t)outputs))
            worst = INFINITY;
        free(row);
    }
    note(y, worst);
    free(exact);
    free(found);
    free(shared);
    free_trial(&t);
}

/* Bias, function, factor and summand. */
static void check_endings(tally *y, const tei_level *level, int format)
{
    for (int act = TEI_IDENTITY; act <= TEI_GELU_ROUGH; act++) {
        if (act == TEI_EXP || act == TEI_LOG1P || act == TEI_ROUND || act == TEI_SQRT)
            continue; /* a product does not end with them, or small differences become large */
        trial t = product(33, 40, 50);
        t.step.kind = act;
        for (int i = 0; i < 40 * 50; i++)
            ((float *)t.weights)[i] /= 8;
        t.bias = random_rows(1, 50, 1);
        t.y = random_rows(33, 50, 1);
        t.z = random_rows(33, 50, 1);
        t.y_width = t.z_width = 50;
        float *found = result_of(level, &t, format, 1), *exact = result_of(plain, &t, TEI_F32, 1);
        note(y, difference(found, exact, 33 * 50));
        free(found);
        free(exact);
        free_trial(&t);
    }
}

/* Rows whose sums are the largest there can be, and a row and an output's weights that hold what is not a number: their
 * results are none, the others are. */
static void check_hostile(tally *y, const tei_level *level, int format)
{
    const int rows = 6, inputs = 1000, outputs = 20;
    trial t = product(rows, inputs, outputs);
    float *x = (float *)t.x, *w = (float *)t.weights;
    for (int k = 0; k < inputs; k++) {
        x[k] = 1e-6f, x[inputs + k] = -1, x[2 * inputs + k] = 1e30f;
        x[3 * inputs + k] = k == 5 ? 1000 : x[3 * inputs + k] / 1000;
        w[k] = 1, w[inputs + k] = -1;
    }
    x[4 * inputs + 7] = w[3 * inputs + 11] = NAN;
    float *found = result_of(level, &t, format, 1), *exact = result_of(plain, &t, TEI_F32, 1);
    float worst = 0;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < outputs; j++) {
            const float f = found[i * outputs + j], e = exact[i * outputs + j];
            const float size = norm_of(x + i * inputs, inputs) * norm_of(w + j * inputs, inputs); /* errors add up here */
            const float d = i == 4 || j == 3 ? (isnan(f) ? 0 : INFINITY) : fabsf(f / size - e / size);
            if (i == 2)
                continue; /* |x| is beyond float32 */
            worst = d <= worst ? worst : d;
        }
    note(y, worst);
    free(found);
    free(exact);
    free_trial(&t);
}

static void test_products(const tei_level *level)
{
    for (int format = 0; format < TEI_FORMATS; format++) {
        if (!level->groups[format])
            continue;
        tally y;
        begin(&y, level->name, "product ", format_names[format], format_tolerances[format]);
        for (int i = 0; i < COUNT(row_counts); i++)
            for (int j = 0; j < COUNT(sizes); j++)
                check_product(&y, level, format, row_counts[i], sizes[j][0], sizes[j][1]);
        end(&y);
        if (format == TEI_BF16 || format == TEI_I8) { /* that take rows in bfloat16 */
            begin(&y, level->name, "product of products, ", format_names[format], 1.5f * format_tolerances[format]);
            for (int i = 0; i < COUNT(row_counts); i += 2)
                for (int j = 0; j < COUNT(sizes); j++)
                    check_chain(&y, level, format, row_counts[i], sizes[j][0], sizes[j][1]);
            end(&y);
        }
        begin(&y, level->name, "what follows it, ", format_names[format], format_tolerances[format]);
        check_endings(&y, level, format);
        end(&y);
        begin(&y, level->name, "hostile rows, ", format_names[format], CLOSE_HOSTILE);
        check_hostile(&y, level, format);
        end(&y);
    }
}

static void check_step(tally *y, const tei_level *level, const trial *t)
{
    float *exact = result_of(plain, t, TEI_F32, 1);
    const size_t n = (size_t)(t->of_sequences ? t->sequences : tokens_of(t)) * (size_t)t->out_width;
    for (int threads = 1; threads < 4; threads += 2) {
        float *found = result_of(level, t, TEI_F32, threads);
        note(y, difference(found, exact, n));
        free(found);
    }
    free(exact);
}

static const int widths[] = {1, 3, 7, 16, 33, 70};

/* Steps that take rows by themselves. */
static void test_rowwise(const tei_level *level)
{
    tally y;
    begin(&y, level->name, "steps by rows", "", CLOSE);
    for (int i = 0; i < COUNT(widths); i++) {
        const int w = widths[i];
        seed = (uint64_t)w;
        trial t = {.x = random_rows(65, 2 * w, 2), .x_width = 2 * w, .y_width = 2 * w, .out_width = 2 * w, .sequences = 2, .starts = {0, 1, 65}};
        t.step = (tei_step){.heads = 2, .a = random_rows(1, w, 1), .b = random_rows(1, w, 1), .eps = 1e-6f, .count = w / 3};
        for (int op = TEI_KEEP_LARGEST; op <= TEI_COPY; op++) {
            t.step.op = op;
            check_step(&y, level, &t);
        }
        t.step.op = TEI_UNARY;
        for (t.step.kind = TEI_IDENTITY; t.step.kind <= TEI_GELU_ROUGH; t.step.kind++)
            if (t.step.kind != TEI_EXP) /* of large numbers: the C library's own, which needs no test */
                check_step(&y, level, &t);
        t.step.op = TEI_REDUCE;
        for (t.step.kind = TEI_SUM; t.step.kind <= TEI_SOFTMAX; t.step.kind++) {
            t.out_width = t.step.kind == TEI_SOFTMAX ? 2 * w : 2;
            check_step(&y, level, &t);
        }
        t.out_width = 2 * w;
        t.y = random_rows(65, 2 * w, 1);
        t.step.op = TEI_BINARY;
        t.step.y_head_stride = w;
        for (t.step.kind = TEI_ADD; t.step.kind <= TEI_MUL; t.step.kind++)
            for (t.step.y_step = 0; t.step.y_step < 2; t.step.y_step++)
                check_step(&y, level, &t);
        free_trial(&t);
    }
    end(&y);
}

static void test_rope(const tei_level *level)
{
    tally y;
    begin(&y, level->name, "rotations", "", CLOSE);
    for (int i = 0; i < COUNT(widths); i++)
        for (int pairs = 1; 2 * pairs <= widths[i]; pairs += 5) {
            trial t = {.x = random_rows(64, 3 * widths[i], 1), .x_width = 3 * widths[i], .out_width = 3 * widths[i], .sequences = 3, .starts = {0, 30, 31, 64}};
            t.step = (tei_step){.op = TEI_ROPE, .heads = 3, .count = pairs, .a = random_rows(64, pairs, 1), .b = random_rows(64, pairs, 1)};
            check_step(&y, level, &t);
            free_trial(&t);
        }
    end(&y);
}

/* Pooling and shifts. */
static void test_sequences(const tei_level *level)
{
    tally y;
    begin(&y, level->name, "pooling, shifts", "", CLOSE);
    for (int i = 0; i < COUNT(widths); i++) {
        trial t = {.x = random_rows(90, widths[i], 1), .x_width = widths[i], .out_width = widths[i], .sequences = 4, .starts = {0, 1, 9, 40, 90}};
        t.step = (tei_step){.op = TEI_SHIFT, .heads = 1, .count = -2};
        check_step(&y, level, &t);
        t.step.op = TEI_POOL;
        t.of_sequences = 1;
        for (t.step.kind = TEI_CLS; t.step.kind <= TEI_SPLADE_SUM_LOG1P; t.step.kind++)
            check_step(&y, level, &t);
        free_trial(&t);
    }
    end(&y);
}

/* Queries of `heads` heads, keys and values of `key_heads`. */
static trial attention(int heads, int key_heads, int width)
{
    trial t = {.sequences = 4, .starts = {0, 1, 10, 75, 375}, .x_width = heads * width, .y_width = key_heads * width,
               .z_width = key_heads * width, .out_width = heads * width};
    seed = (uint64_t)(heads * 100 + width);
    t.x = random_rows(375, t.x_width, 1);
    t.y = random_rows(375, t.y_width, 1);
    t.z = random_rows(375, t.z_width, 1);
    t.step = (tei_step){.op = TEI_ATTENTION, .heads = heads, .key_heads = key_heads, .window = -1, .scale = 1 / sqrtf((float)width)};
    return t;
}

static void check_attention(tally *y, const tei_level *level, int heads, int key_heads, int width, int half)
{
    trial t = attention(heads, key_heads, width);
    const int attended[] = {1, 9, 50, 299};
    t.step.half = half;
    check_step(y, level, &t);
    t.step.causal = 1;
    check_step(y, level, &t);
    t.step.causal = 0;
    t.step.window = 20;
    t.step.reach = 7;
    t.step.a = random_rows(15, heads, 1);
    check_step(y, level, &t);
    t.step.window = -1;
    t.step.b = random_rows(1, heads, 0.1f);
    memcpy(t.attended, attended, sizeof attended);
    check_step(y, level, &t);
    free_trial(&t);
}

/* Its inputs come from products. */
static void check_chained_attention(tally *y, const tei_level *level)
{
    trial t = attention(2, 2, 32);
    t.through = random_rows(64, 64, 0.125f);
    t.step.half = 1;
    check_step(y, level, &t);
    free_trial(&t);
}

static void check_disentangled(tally *y, const tei_level *level, int width)
{
    trial t = attention(2, 2, width);
    int32_t *rows = memory(sizeof(int32_t) * 101);
    for (int i = 0; i < 101; i++)
        rows[i] = i * TABLE_ROWS / 101;
    t.step.op = TEI_DISENTANGLED;
    t.step.reach = 50;
    t.step.table_rows = TABLE_ROWS;
    t.step.a = rows;
    t.step.b = random_rows(TABLE_ROWS, 2 * width, 1);
    t.step.c = random_rows(TABLE_ROWS, 2 * width, 1);
    check_step(y, level, &t);
    free_trial(&t);
}

static void test_attention(const tei_level *level)
{
    for (int half = 0; half <= (level->groups[TEI_BF16] > 0); half++) {
        tally y;
        begin(&y, level->name, "attention", half ? " in bfloat16" : "", half ? CLOSE_HALF : CLOSE);
        check_attention(&y, level, 2, 2, 32, half);
        check_attention(&y, level, 4, 2, 70, half);
        check_attention(&y, level, 3, 3, 5, half);
        if (half)
            check_chained_attention(&y, level);
        end(&y);
    }
    tally y;
    begin(&y, level->name, "disentangled attention", "", CLOSE);
    check_disentangled(&y, level, 32);
    check_disentangled(&y, level, 7);
    end(&y);
}

static const tei_level *find(const char *name)
{
    for (const level_choice *choice = level_choices; choice->level; choice++)
        if (!strcmp(choice->level->name, name))
            return choice->level;
    fprintf(stderr, "there is no level %s in this program\n", name);
    exit(2);
}

int main(int count, char **names)
{
    plain = find("plain");
    for (int i = 1; i < count; i++) {
        const tei_level *level = find(names[i]);
        test_products(level);
        test_rowwise(level);
        test_rope(level);
        test_sequences(level);
        test_attention(level);
    }
    return failures ? 1 : 0;
}
