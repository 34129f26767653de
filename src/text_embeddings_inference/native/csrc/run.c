/* Runs a plan's stages on a batch. Within a rowwise stage a thread takes a block of rows through all steps, so that what
 * lies between them stays in its cache; a batch that is one small block is shared by columns of the products instead.
 * Stages wait for each other. What a row gets is the same either way. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "level.h"
#include "team.h"

/* Work that is done in pieces: a stage, or one step of it. */
typedef struct {
    atomic_int taken; /* pieces that a thread has taken */
    team_count done;
} __attribute__((aligned(64))) phase;

typedef struct {
    const tei_engine *engine;
    tei_run_state state;
    tei_team *team; /* NULL: the caller alone */
    int threads;
    phase *phases; /* of each stage, then of each step */
    char *memory;  /* of the threads, each `thread_bytes` */
    size_t thread_bytes, local_bytes;
} running;

/* Gives the thread another piece; when there is none, waits until all are done and returns 0. */
static int next_piece(running *run, phase *phase, int pieces, int *piece)
{
    *piece = atomic_fetch_add(&phase->taken, 1);
    if (*piece >= pieces)
        team_wait(run->team, &phase->done, pieces);
    return *piece < pieces;
}

#define EACH_PIECE(run, phase, pieces, i) \
    for (int i; next_piece(run, phase, pieces, &i); team_count_up(&(phase)->done, pieces))

static int is_skipped(const running *run, const tei_step *step) { return step->for_hidden && !run->state.batch->hidden; }

static tei_task task_of(const running *run, int thread)
{
    char *memory = run->memory + (size_t)thread * run->thread_bytes;
    return (tei_task){.run = &run->state, .parts = 1, .local = (float *)memory, .scratch = memory + run->local_bytes};
}

static int rows_of_stage(const running *run, const tei_stage *stage)
{
    return stage->rows == TEI_TOKENS ? run->state.batch->tokens : run->state.batch->sequences;
}

/* Into how many pieces a step is cut: a product by columns, two for each thread, so that one that comes late finds some;
 * the others by rows. */
static int pieces_of(const running *run, const tei_step *step, int rows)
{
    if (step->op != TEI_LINEAR)
        return rows < run->threads ? rows : run->threads;
    const int panel = run->engine->level->panel, panels = (((const tei_matrix *)step->a)->outputs + panel - 1) / panel;
    return panels < 2 * run->threads ? panels : 2 * run->threads;
}

/* One thread's part of a step that takes rows by themselves. */
static void run_rows(const running *run, const tei_task *task)
{
    const tei_level *level = run->engine->level;
    const tei_probe *probes = run->state.batch->probes;
    if (probes && task->step->op == TEI_LINEAR) /* these rows are this thread's: nobody has overwritten them yet */
        level->probe(task, probes + (task->step - run->engine->plan.steps));
    level->rowwise[task->step->op](task);
}

/* All rows are one block: a piece is some columns of a product, or some rows of another step. */
static void run_by_columns(running *run, const tei_stage *stage, int thread)
{
    const tei_plan *plan = &run->engine->plan;
    const int rows = rows_of_stage(run, stage);
    tei_task task = task_of(run, thread);
    task.local = (float *)run->memory; /* the first thread's, for all */
    for (int i = stage->first; i < stage->first + stage->count; i++) {
        const tei_step *step = plan->steps + i;
        if (is_skipped(run, step))
            continue;
        const int pieces = pieces_of(run, step, rows), by_columns = step->op == TEI_LINEAR;
        task.step = step;
        task.has_operand = 0;
        EACH_PIECE(run, run->phases + plan->n_stages + i, pieces, n) {
            task.part = by_columns ? n : 0;
            task.parts = by_columns ? pieces : 1;
            task.first = by_columns ? 0 : rows * n / pieces;
            task.last = by_columns ? rows : rows * (n + 1) / pieces;
            run_rows(run, &task);
            task.has_operand = by_columns;
        }
    }
}

static void run_by_blocks(running *run, const tei_stage *stage, phase *phase, int thread)
{
    const int rows = rows_of_stage(run, stage);
    const int least = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const int blocks = (least + run->threads - 1) / run->threads * run->threads;
    tei_task task = task_of(run, thread);
    EACH_PIECE(run, phase, blocks, b) {
        task.first = task.block = (int)((int64_t)rows * b / blocks);
        task.last = (int)((int64_t)rows * (b + 1) / blocks);
        for (int i = stage->first; i < stage->first + stage->count && task.first < task.last; i++) {
            task.step = run->engine->plan.steps + i;
            if (!is_skipped(run, task.step))
                run_rows(run, &task);
        }
    }
}

static void run_items(running *run, const tei_stage *stage, phase *phase, int thread)
{
    const tei_level *level = run->engine->level;
    tei_task task = task_of(run, thread);
    task.step = run->engine->plan.steps + stage->first;
    if (is_skipped(run, task.step))
        return;
    const int items = level->items(task.step, run->state.batch);
    EACH_PIECE(run, phase, items, i)
        level->whole[task.step->op](&task, i);
}

static void run_stages(void *argument, int thread)
{
    running *run = argument;
    const tei_plan *plan = &run->engine->plan;
    for (int n = 0; n < plan->n_stages; n++) {
        const tei_stage *stage = plan->stages + n;
        if (!stage->rowwise)
            run_items(run, stage, run->phases + n, thread);
        else if (run->threads > 1 && rows_of_stage(run, stage) <= BLOCK_ROWS && !run->state.batch->probes)
            run_by_columns(run, stage, thread);
        else
            run_by_blocks(run, stage, run->phases + n, thread);
    }
}

#define SLACK 16 /* floats after the last row */

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

static int n_chunks(const tei_batch *batch)
{
    int chunks = 0;
    for (int b = 0; b < batch->sequences; b++)
        chunks += (batch->starts[b + 1] - batch->starts[b] + QUERY_ROWS - 1) / QUERY_ROWS;
    return chunks;
}

/* What a batch needs in memory, and where it lies in `memory` once that is known. Returns its size. */
static size_t lay_out(running *run, char *memory)
{
    const tei_plan *plan = &run->engine->plan;
    const tei_batch *batch = run->state.batch;
    size_t used = 0, scratch = 0;
    for (int i = 0; i < plan->n_steps; i++) {
        const size_t bytes = run->engine->level->scratch_bytes(plan->steps + i, batch);
        scratch = bytes > scratch ? bytes : scratch;
    }
#define PLACE(type, count) (type *)(memory ? memory + used : NULL); used += aligned(sizeof(type) * (size_t)(count))
    int32_t *positions = PLACE(int32_t, batch->tokens);
    int32_t *chunks = PLACE(int32_t, 2 * n_chunks(batch));
    float **bases = PLACE(float *, plan->n_buffers);
    run->phases = PLACE(phase, plan->n_stages + plan->n_steps);
    float *tokens = PLACE(float, (size_t)plan->widths[TEI_TOKENS] * (size_t)batch->tokens + SLACK);
    float *sequences = PLACE(float, (size_t)plan->widths[TEI_SEQUENCES] * (size_t)batch->sequences + SLACK);
    for (int i = 0; memory && i < plan->n_buffers; i++) {
        const tei_buffer *buffer = plan->buffers + i;
        const size_t offset = (size_t)buffer->offset;
        float *base = buffer->rows == TEI_TOKENS ? tokens + offset * (size_t)batch->tokens
                                                 : sequences + offset * (size_t)batch->sequences;
        bases[i] = buffer->place == TEI_POOLED                    ? batch->pooled
                   : buffer->place == TEI_HIDDEN && batch->hidden ? batch->hidden
                                                                  : base;
    }
    run->local_bytes = aligned(sizeof(float) * BLOCK_ROWS * (size_t)plan->local_width);
    run->thread_bytes = run->local_bytes + aligned(scratch);
    run->memory = PLACE(char, run->thread_bytes * (size_t)run->threads);
#undef PLACE
    run->state.positions = positions;
    run->state.chunks = chunks;
    run->state.bases = bases;
    return used;
}

/* Positions of tokens, and chunks of sequences. */
static void count_tokens(const tei_batch *batch, int32_t *positions, int32_t *chunks)
{
    for (int b = 0; b < batch->sequences; b++) {
        const int begin = batch->starts[b], end = batch->starts[b + 1];
        for (int i = begin; i < end; i++)
            positions[i] = i - begin;
        for (int i = 0; i < end - begin; i += QUERY_ROWS, chunks += 2)
            chunks[0] = b, chunks[1] = i;
    }
}

int32_t tei_run(tei_engine *engine, const tei_batch *batch, tei_team *team)
{
    if (team && !team_take(team))
        team = NULL;
    running run = {.engine = engine, .state = {.plan = &engine->plan, .batch = batch}, .team = team};
    run.threads = team ? team_threads(team) : 1;
    size_t bytes = lay_out(&run, NULL);
    memory_block *block = take_memory(engine, bytes);
    if (block) {
        lay_out(&run, block->memory);
        count_tokens(batch, (int32_t *)run.state.positions, (int32_t *)run.state.chunks);
        memset(run.phases, 0, sizeof *run.phases * (size_t)(engine->plan.n_stages + engine->plan.n_steps));
        if (team)
            team_run(team, run_stages, &run);
        else
            run_stages(&run, 0);
        give_memory(engine, block);
    }
    if (team)
        team_release(team);
    return block ? 0 : ENOMEM;
}
