/* Threads that work together on one batch: the caller and workers of its own, who join when they get to run. */
#ifndef TEI_TEAM_H
#define TEI_TEAM_H

#include <stdatomic.h>

#include "tei.h"

/* A number that threads wait for, and how many of them sleep. */
typedef struct {
    atomic_int value, sleepers;
} team_count;

int team_threads(const tei_team *team);
/* Takes the team for one batch; 0 if another batch has it. Starts its workers where they are not running yet. */
int team_take(tei_team *team);
/* Calls work(argument, 0) here, and work(argument, n) on each worker n that comes before that has returned; comes back when
 * all have left it. `work` has to be complete without them. */
void team_run(tei_team *team, void (*work)(void *argument, int thread), void *argument);
void team_release(tei_team *team);
/* Adds 1, within `work`, and wakes who waits for `last` if that is it. */
void team_count_up(team_count *count, int last);
/* Waits, within `work`, until the count is at least `last`. */
void team_wait(tei_team *team, team_count *count, int last);

#endif
