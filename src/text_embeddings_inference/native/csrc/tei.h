/* What Python and C agree on: the steps of a plan, the buffers they work on, and the calls. native/library.py has the
 * same structures for ctypes; TEI_ABI changes with every change here.
 *
 * Letters: T tokens of a batch, B sequences, D width of a row, N heads, H width of a head, K inputs of a product.
 */
#ifndef TEI_H
#define TEI_H

#include <stddef.h>
#include <stdint.h>

#define TEI_ABI 7

/* What a step computes. Steps up to TEI_LAST_ROWWISE take each row by itself. */
enum tei_op {
    TEI_EMBED,        /* out = table[ids]; with y: plus y */
    TEI_LINEAR,       /* out = act(x W^T + b) * z + y; y and z may be absent */
    TEI_UNARY,        /* out = f(x) */
    TEI_BINARY,       /* out = x op y */
    TEI_REDUCE,       /* out = sum, mean, largest or softmax of each vector of x */
    TEI_KEEP_LARGEST, /* out = x where it is one of the `count` largest of its vector, else 0 */
    TEI_LAYER_NORM,   /* out = (x - mean) / sqrt(variance + eps) * weight + bias */
    TEI_RMS_NORM,     /* out = x / sqrt(mean of squares + eps) * weight */
    TEI_L2_NORM,      /* out = x / |x| */
    TEI_COPY,         /* out = x */
    TEI_ROPE,         /* out = x, its first 2 * `count` channels rotated by the row's position */
    TEI_EXPERTS,      /* out = sum over `count` experts of y[e] * act(x Up_e^T) Down_e^T; where y[e] is 0 it is not computed */
    TEI_LAST_ROWWISE = TEI_EXPERTS,
    TEI_SHIFT,        /* out = the row `count` places further in its sequence, or 0 */
    TEI_ATTENTION,    /* out = softmax(cap(scale x y^T) + bias) z within each sequence */
    TEI_DISENTANGLED, /* the same with scores by content and distance */
    TEI_POOL,         /* out[B] = one vector for each sequence of x[T] */
    TEI_OPS
};

enum tei_unary {
    TEI_IDENTITY,
    TEI_GELU,
    TEI_GELU_TANH,
    TEI_RELU,
    TEI_SILU,
    TEI_TANH,
    TEI_SIGMOID,
    TEI_SQRT,
    TEI_EXP,
    TEI_LOG1P,
    TEI_ROUND,
    TEI_GELU_ROUGH /* to 2e-5: for results that become numbers of 16 bits or fewer */
};
enum tei_binary { TEI_ADD, TEI_SUB, TEI_MUL, TEI_DIV };
enum tei_reduce { TEI_SUM, TEI_MEAN, TEI_LARGEST, TEI_SOFTMAX };
enum tei_pool { TEI_CLS, TEI_LAST_TOKEN, TEI_POOL_MEAN, TEI_POOL_MAX, TEI_MEAN_SQRT, TEI_WEIGHTED_MEAN,
                TEI_SPLADE, TEI_SPLADE_LOG1P, TEI_SPLADE_SUM, TEI_SPLADE_SUM_LOG1P };
enum tei_ids { TEI_INPUT_IDS, TEI_TYPE_IDS, TEI_POSITIONS };

/* How the weights of a product are stored, and what its inputs become. */
enum tei_format {
    TEI_F32,     /* float32 by float32 */
    TEI_F32_B16, /* float32 by bfloat16, computed in float32 */
    TEI_BF16,    /* bfloat16 by bfloat16, sums in float32 */
    TEI_I16,     /* int16 by int16, both scaled, sums in int32 */
    TEI_I8,      /* uint8 (asymmetric, by row) by int8 (by output), sums in int32 */
    TEI_FORMATS
};

/* Types of stored numbers. */
enum tei_number { TEI_NUMBER_F32, TEI_NUMBER_B16, TEI_NUMBER_F16, TEI_NUMBER_F64 };

/* Where a buffer lies. */
enum tei_place {
    TEI_ARENA,  /* all rows of the batch */
    TEI_LOCAL,  /* only the rows a thread works on, within one stage */
    TEI_POOLED, /* the caller's result [B, D] */
    TEI_HIDDEN  /* the caller's result [T, W] where it wants one, else like TEI_ARENA */
};

enum tei_rows { TEI_TOKENS, TEI_SEQUENCES };

typedef struct {
    int32_t place, rows; /* tei_place, tei_rows */
    int32_t width;       /* floats of a row */
    int32_t offset;      /* floats of a row before it in the batch's memory, or the thread's */
    int32_t half;        /* it holds bfloat16 numbers, two in the place of a float */
} tei_buffer;

/* Some columns of a buffer. */
typedef struct {
    int32_t buffer; /* -1: there is none */
    int32_t column, width; /* numbers */
} tei_view;

/* Packed weights of a product: `[N / panel][K / group][panel][group]`, panel and group as the level has them. Arrays by
 * output have N rounded up to whole panels, zeros at the end. */
typedef struct {
    int32_t format, inputs, outputs, groups;
    const void *panels;
    const float *bias;    /* NULL: none */
    const float *scale;   /* integers: of each output */
    const int32_t *sums;  /* TEI_I8: the sum of each output's weights */
    float norm;           /* TEI_I16: the largest euclidean norm of an output's weights, as integers */
} tei_matrix;

typedef struct {
    int32_t op, kind;      /* tei_op; tei_unary (also what TEI_LINEAR and TEI_EXPERTS apply), tei_binary, tei_reduce, tei_pool, tei_ids */
    int32_t heads;         /* a row of x is so many vectors */
    int32_t key_heads;     /* attention: heads of y and z */
    int32_t count;         /* see tei_op; rope: pairs of channels that turn */
    int32_t causal;        /* attention: a token sees nothing after it */
    int32_t window;        /* attention: it sees so many tokens to either side, -1: all */
    int32_t reach;         /* attention: `a` is for distances from -reach to reach */
    int32_t table_rows;    /* disentangled: P, rows of b and c */
    int32_t y_head_stride; /* binary: floats from one vector of y to the next */
    int32_t y_step;        /* binary: 1, or 0 where a vector of y is one number */
    int32_t by_length;     /* rope: 0, or 1 + the number of the batch's rotations that it takes */
    int32_t half;          /* attention: its products in bfloat16; experts: what lies between theirs */
    int32_t for_hidden;    /* only needed where the caller wants hidden states */
    int32_t table;         /* embed: the tei_number of its table */
    float scale, eps;
    float cap;             /* attention: a score x becomes cap * tanh(x / cap) before anything is added; 0: it stays */
    tei_view out, x, y, z;
    /* embed: table `[V, D]`. linear: tei_matrix. binary: a constant y. norms: weight, bias. rope: cosines and
     * sines `[positions, count]`. attention: bias `[2 * reach + 1, N]`, slopes `[N]`. disentangled: rows int32
     * `[2 * reach + 1]`, keys and queries `[P, N, H]`.
     * experts: two tei_matrix * for each, Up `[I, D]` and Down `[D, I]`. */
    const void *a, *b, *c;
} tei_step;

/* Steps that run one after another without waiting for other rows, or one step that does not take rows by themselves. */
typedef struct {
    int32_t first, count;
    int32_t rowwise, rows; /* whether its steps are; tei_rows */
} tei_stage;

typedef struct {
    const tei_step *steps;
    const tei_stage *stages;
    const tei_buffer *buffers;
    int32_t n_steps, n_stages, n_buffers;
    int32_t widths[2];   /* floats of a row in the batch's memory, of tokens and of sequences */
    int32_t local_width; /* and in a thread's own */
} tei_plan;

/* Some outputs of a product, computed twice from the same rows of its input: to see what a format loses. */
typedef struct {
    const tei_matrix *rough, *exact;   /* a panel each, of these outputs; NULL: this step is not looked at */
    const int32_t *columns;            /* [panel]: which outputs of the product they are */
    float *rough_values, *exact_values; /* [T, panel]: x W^T + y */
} tei_probe;

typedef struct {
    int32_t tokens, sequences, longest;
    const int32_t *ids;      /* [T] */
    const int32_t *types;    /* [T]; NULL: all 0 */
    const int32_t *starts;   /* [B + 1] */
    const int32_t *attended; /* [B]; NULL: all */
    const float *const *rotations; /* each [2, T, R / 2]: cosines and sines of each token */
    float *pooled, *hidden;        /* hidden NULL: not wanted */
    const tei_probe *probes;       /* of each step; NULL: none */
} tei_batch;

/* Weights as a checkpoint has them: rows of K numbers. Strides in bytes. */
typedef struct {
    const void *p;
    int64_t row_stride, column_stride;
    int32_t type, rows; /* tei_number */
} tei_source;

typedef struct tei_level tei_level;
typedef struct tei_team tei_team;
typedef struct tei_engine tei_engine;

int32_t tei_abi(void);
/* The level of that name if this library has it and this CPU can run it, else NULL. */
const tei_level *tei_find_level(const char *name);
/* The levels that this CPU can run, from 0 on, the best first; NULL where there are no more. */
const char *tei_level_name(int32_t number);
/* Columns of a panel; and inputs of a group of a format, 0 where the level has no such products. */
int32_t tei_panel(const tei_level *level);
int32_t tei_group(const tei_level *level, int32_t format);
/* Packs weights `[N, K]`, the rows of all sources one below the other, into panels from `first` to before `last` (and
 * into scale and sums), which the caller made large enough. norm: of these panels, see tei_matrix. Returns 0, or ENOMEM. */
int32_t tei_pack(const tei_level *level, const tei_matrix *matrix, const tei_source *sources, int32_t first,
                 int32_t last, float *norm);
/* A sum over so many bytes, a multiple of 64, that any change shows in (all but 1 of 2^64). */
uint64_t tei_checksum(const void *p, size_t bytes);
/* Threads that work together on one batch; NULL where memory is short. */
tei_team *tei_team_new(int32_t threads);
void tei_team_free(tei_team *team);
/* An engine keeps a copy of the plan, but what it points to has to stay; NULL where memory is short. */
tei_engine *tei_open(const tei_level *level, const tei_plan *plan);
void tei_close(tei_engine *engine);
/* Runs a batch, with the team if one is given and free. Called from several threads at once. Returns 0, or ENOMEM. */
int32_t tei_run(tei_engine *engine, const tei_batch *batch, tei_team *team);

#endif
