/* A team's workers wait for work and for each other: they spin for some microseconds, for a product is short and waking
 * a thread is not, then sleep in the kernel. An idle team uses no CPU.
 *
 * A thread that sleeps may be woken on its caller's CPU and share it for milliseconds, so a worker is kept off it. After
 * a fork the child has no workers: they are started anew. */
#define _GNU_SOURCE
#include "team.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#endif
#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() (void)0
#endif

#define SPINS 4000 /* about 100 microseconds */

/* A number that threads wait on, and how many of them sleep. */
typedef struct {
    atomic_int value, sleepers;
} signal_word;

struct tei_team {
    int threads, spins;
    pthread_t *workers;
    atomic_int pid, taken;
    int running;               /* workers that were started in process `pid` */
    signal_word task, turn;    /* count up: with each call of team_run, with each barrier that opened */
    atomic_int arrived, ready;
    int stopping;
    void (*work)(void *, int);
    void *argument;
};

typedef struct {
    tei_team *team;
    int number;
} worker_start;

static void sleep_on(signal_word *word, int value)
{
    atomic_fetch_add(&word->sleepers, 1);
#ifdef __linux__
    syscall(SYS_futex, &word->value, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
#else
    if (atomic_load(&word->value) == value)
        usleep(50);
#endif
    atomic_fetch_sub(&word->sleepers, 1);
}

static void wait_while(signal_word *word, int value, int spins)
{
    while (atomic_load_explicit(&word->value, memory_order_acquire) == value) {
        if (spins-- > 0)
            PAUSE();
        else
            sleep_on(word, value);
    }
}

static void count_up(signal_word *word)
{
    atomic_fetch_add(&word->value, 1);
#ifdef __linux__
    if (atomic_load(&word->sleepers))
        syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
#endif
}

void team_barrier(tei_team *team)
{
    const int turn = atomic_load_explicit(&team->turn.value, memory_order_acquire);
    if (atomic_fetch_add(&team->arrived, 1) + 1 == team->running + 1) {
        atomic_store(&team->arrived, 0);
        count_up(&team->turn);
    } else
        wait_while(&team->turn, turn, team->spins);
}

static void *worker(void *start)
{
    const worker_start mine = *(worker_start *)start;
    tei_team *team = mine.team;
    int task = atomic_load(&team->task.value);
    free(start);
    atomic_fetch_add(&team->ready, 1);
    for (;;) {
        wait_while(&team->task, task, team->spins);
        task++;
        if (team->stopping)
            return NULL;
        team->work(team->argument, mine.number);
        team_barrier(team);
    }
}

/* Workers that can't be started are done without. */
static void start_workers(tei_team *team)
{
    atomic_store(&team->ready, 0);
    team->running = 0;
    while (team->running < team->threads - 1) {
        worker_start *start = malloc(sizeof *start);
        if (!start)
            break;
        *start = (worker_start){team, team->running + 1};
        if (pthread_create(team->workers + team->running, NULL, worker, start)) {
            free(start);
            break;
        }
        team->running++;
    }
    while (atomic_load(&team->ready) < team->running) /* each has seen which task is the last one before its first */
        sched_yield();
}

/* Sleeping workers may run on any CPU but the caller's. */
static void keep_off_this_cpu(tei_team *team)
{
#ifdef __linux__
    cpu_set_t allowed;
    const int cpu = sched_getcpu();
    if (!atomic_load(&team->task.sleepers) || cpu < 0 || sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    CPU_CLR(cpu, &allowed);
    if (CPU_COUNT(&allowed) >= team->running)
        for (int i = 0; i < team->running; i++)
            pthread_setaffinity_np(team->workers[i], sizeof allowed, &allowed);
#else
    (void)team;
#endif
}

int team_threads(const tei_team *team) { return team->running + 1; }

int team_take(tei_team *team)
{
    int pid = atomic_load(&team->pid), expected = 0;
    const int mine = getpid();
    if (pid != mine && atomic_compare_exchange_strong(&team->pid, &pid, mine)) {
        team->running = -1; /* the parent's workers are not here */
        atomic_store(&team->arrived, 0);
        atomic_store(&team->task.sleepers, 0);
        atomic_store(&team->turn.sleepers, 0);
        atomic_store(&team->taken, 0);
    }
    if (!atomic_compare_exchange_strong(&team->taken, &expected, 1))
        return 0;
    if (team->running < 0)
        start_workers(team);
    return 1;
}

void team_release(tei_team *team) { atomic_store(&team->taken, 0); }

void team_run(tei_team *team, void (*work)(void *, int), void *argument)
{
    team->work = work;
    team->argument = argument;
    if (team->running) {
        keep_off_this_cpu(team);
        count_up(&team->task);
    }
    work(argument, 0);
    if (team->running)
        team_barrier(team);
}

tei_team *tei_team_new(int32_t threads)
{
    tei_team *team = calloc(1, sizeof *team);
    if (!team || !(team->workers = calloc((size_t)threads, sizeof *team->workers))) {
        free(team);
        return NULL;
    }
    team->threads = threads;
    team->running = -1;
    atomic_store(&team->pid, getpid());
    team->spins = threads <= sysconf(_SC_NPROCESSORS_ONLN) ? SPINS : 0;
#ifdef __linux__
    cpu_set_t allowed;
    if (!sched_getaffinity(0, sizeof allowed, &allowed) && CPU_COUNT(&allowed) < threads)
        team->spins = 0;
#endif
    return team;
}

void tei_team_free(tei_team *team)
{
    if (!team)
        return;
    if (atomic_load(&team->pid) == getpid() && team->running > 0) {
        team->stopping = 1;
        count_up(&team->task);
        for (int i = 0; i < team->running; i++)
            pthread_join(team->workers[i], NULL);
    }
    free(team->workers);
    free(team);
}
