/* Threads that work together on one batch: the caller and workers of its own. */
#ifndef TEI_TEAM_H
#define TEI_TEAM_H

#include "tei.h"

int team_threads(const tei_team *team);
/* Takes the team for one batch; 0 if another batch has it. Starts its workers where they are not running yet. */
int team_take(tei_team *team);
/* Calls work(argument, n) on every thread of the team, n from 0 (the caller) on, and waits for all. */
void team_run(tei_team *team, void (*work)(void *argument, int thread), void *argument);
void team_release(tei_team *team);
/* Waits, within `work`, until every thread of the team has come here. */
void team_barrier(tei_team *team);

#endif
