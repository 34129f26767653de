/* What run.c needs of a level: one set of kernels, compiled for one kind of CPU. */
#ifndef TEI_LEVEL_H
#define TEI_LEVEL_H

#include "tei.h"

/* Rows of the largest block that a thread takes through a stage; its intermediate results stay in the second cache. */
#define BLOCK_ROWS 64
/* Rows of queries that attention takes at once: with them the keys of their sequence are arranged. */
#define QUERY_ROWS 256

/* A batch while it runs. */
typedef struct {
    const tei_plan *plan;
    const tei_batch *batch;
    const int32_t *positions; /* [T], in its sequence */
    const int32_t *chunks;    /* of up to QUERY_ROWS tokens of a sequence: its number, and the first of them in it */
    float *const *bases;      /* of each buffer that is not TEI_LOCAL */
} tei_run_state;

/* One thread's part of a step: rows from `first` to before `last`, and of a product `part` of `parts` of its columns. */
typedef struct {
    const tei_run_state *run;
    const tei_step *step;
    int32_t first, last;
    int32_t part, parts;
    int32_t block; /* the row that the thread's own memory begins with */
    float *local;  /* BLOCK_ROWS rows of the plan's TEI_LOCAL buffers */
    char *scratch; /* what the step itself needs, see scratch_bytes */
    int32_t has_operand; /* whether an earlier part of this product left its input, converted, in `scratch` */
} tei_task;

struct tei_level {
    const char *name;
    int32_t panel;                              /* columns of a panel of weights */
    int32_t groups[TEI_FORMATS];                /* inputs that are multiplied together; 0: no such product here */
    void (*rowwise[TEI_OPS])(const tei_task *); /* steps that take rows by themselves */
    /* Computes the probe of a product for the rows of the task, before the product itself. */
    void (*probe)(const tei_task *, const tei_probe *);
    /* Other steps: one of `items` parts of it. */
    int32_t (*items)(const tei_step *, const tei_batch *);
    void (*whole[TEI_OPS])(const tei_task *, int32_t item);
    size_t (*scratch_bytes)(const tei_step *, const tei_batch *);
    int32_t (*pack)(const tei_matrix *matrix, const tei_source *sources, int32_t first, int32_t last, float *norm);
};

#endif
