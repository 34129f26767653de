/* The calls of tei.h besides tei_run: levels, packing, engines and their memory. */
#define _GNU_SOURCE
#include "engine.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu.h"
#include "level.h"

#define KEPT_BYTES ((size_t)48 << 20) /* of a block; larger ones are rare, and freed at once */
#define HUGE_PAGE ((size_t)2 << 20)

int32_t tei_abi(void) { return TEI_ABI; }

const tei_level *tei_find_level(const char *name)
{
    for (const level_choice *choice = level_choices; choice->level; choice++)
        if (!strcmp(choice->level->name, name) && choice->runs_here())
            return choice->level;
    return NULL;
}

const char *tei_level_name(int32_t number)
{
    for (const level_choice *choice = level_choices; choice->level; choice++)
        if (choice->runs_here() && number-- == 0)
            return choice->level->name;
    return NULL;
}

int32_t tei_panel(const tei_level *level) { return level->panel; }

int32_t tei_group(const tei_level *level, int32_t format) { return level->groups[format]; }

int32_t tei_pack(const tei_level *level, const tei_matrix *matrix, const tei_source *sources, int32_t first,
                 int32_t last, float *norm)
{
    return level->pack(matrix, sources, first, last, norm);
}

uint64_t tei_checksum(const void *p, size_t bytes)
{
    /* Lanes that don't wait for each other; each step can be undone, so that no change of one word is lost. */
    const uint64_t *words = p, factor = 0x9e3779b97f4a7c15;
    uint64_t lanes[8] = {1, 2, 3, 4, 5, 6, 7, 8}, sum = bytes;
    for (size_t i = 0; i + 8 <= bytes / 8; i += 8)
        for (int lane = 0; lane < 8; lane++) {
            const uint64_t x = (lanes[lane] ^ words[i + (size_t)lane]) * factor;
            lanes[lane] = x << 29 | x >> 35;
        }
    for (int lane = 0; lane < 8; lane++) {
        const uint64_t x = (sum ^ lanes[lane]) * factor;
        sum = x << 29 | x >> 35;
    }
    return sum;
}

tei_engine *tei_open(const tei_level *level, const tei_plan *plan)
{
    tei_engine *engine = calloc(1, sizeof *engine);
    if (engine) {
        engine->level = level;
        engine->plan = *plan;
    }
    return engine;
}

void tei_close(tei_engine *engine)
{
    if (!engine)
        return;
    for (memory_block *block = engine->unused; block;) {
        memory_block *next = block->next;
        free(block->memory);
        free(block);
        block = next;
    }
    free(engine);
}

static void lock(tei_engine *engine)
{
    while (atomic_flag_test_and_set_explicit(&engine->locked, memory_order_acquire))
        sched_yield();
}

static void unlock(tei_engine *engine) { atomic_flag_clear_explicit(&engine->locked, memory_order_release); }

static memory_block *take_unused(tei_engine *engine)
{
    lock(engine);
    memory_block *block = engine->unused;
    if (block)
        engine->unused = block->next;
    unlock(engine);
    return block;
}

memory_block *take_memory(tei_engine *engine, size_t bytes)
{
    memory_block *block = take_unused(engine);
    if (!block && !(block = calloc(1, sizeof *block)))
        return NULL;
    if (block->bytes < bytes) {
        free(block->memory);
        bytes = (bytes + bytes / 4 + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE; /* most of the next batches fit, too */
        block->bytes = bytes;
        block->memory = aligned_alloc(HUGE_PAGE, bytes);
        if (!block->memory) {
            free(block);
            return NULL;
        }
#ifdef MADV_HUGEPAGE
        madvise(block->memory, bytes, MADV_HUGEPAGE);
#endif
    }
    return block;
}

void give_memory(tei_engine *engine, memory_block *block)
{
    if (block->bytes > KEPT_BYTES) {
        free(block->memory);
        free(block);
        return;
    }
    lock(engine);
    block->next = engine->unused;
    engine->unused = block;
    unlock(engine);
}
