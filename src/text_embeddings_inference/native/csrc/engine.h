/* A plan at a level, and the memory its batches used, kept for the next ones. */
#ifndef TEI_ENGINE_H
#define TEI_ENGINE_H

#include <stdatomic.h>

#include "tei.h"

/* What one batch has at a time. */
typedef struct memory_block {
    struct memory_block *next;
    size_t bytes;
    char *memory;
} memory_block;

struct tei_engine {
    const tei_level *level;
    tei_plan plan;
    atomic_flag locked;   /* held while the list is changed, a few instructions */
    memory_block *unused;
};

/* A block of at least so many bytes, NULL where memory is short. */
memory_block *take_memory(tei_engine *engine, size_t bytes);
/* Keeps the block for another batch, or frees it if it is larger than most batches need. */
void give_memory(tei_engine *engine, memory_block *block);

#endif
