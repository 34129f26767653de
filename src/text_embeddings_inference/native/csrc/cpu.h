/* The levels of this library, the best one first, and whether this CPU runs them. */
#ifndef TEI_CPU_H
#define TEI_CPU_H

#include "tei.h"

typedef struct {
    const tei_level *level; /* NULL: the end of the list */
    int (*runs_here)(void);
} level_choice;

extern const level_choice level_choices[];

#endif
