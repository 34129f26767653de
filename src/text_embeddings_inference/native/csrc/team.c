/* A team's workers wait for work and for each other: they spin for some microseconds, for a product is short and waking
 * a thread is not, then sleep in the kernel. An idle team uses no CPU.
 *
 * Nobody waits for a worker that does not run: work is cut into pieces that whoever is there takes, and a worker that is
 * woken late, or on a CPU that others use, joins late or not at all. It may be woken on its caller's CPU and share it for
 * milliseconds, so it is kept off that. After a fork the child has no workers: they are started anew. */
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

/* Of `inside`: workers may join. */
#define OPEN (1 << 30)

struct tei_team {
    int threads, spins;
    pthread_t *workers;
    atomic_int pid, taken;
    int running;       /* workers that were started in process `pid` */
    team_count task;   /* counts up with each call of team_run */
    team_count inside; /* workers that joined it, and OPEN until the caller is through */
    atomic_int ready;
    int stopping;
    void (*work)(void *, int);
    void *argument;
};

typedef struct {
    tei_team *team;
    int number;
} worker_start;

static void sleep_while(team_count *count, int value)
{
    atomic_fetch_add(&count->sleepers, 1);
#ifdef __linux__
    syscall(SYS_futex, &count->value, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
#else
    if (atomic_load(&count->value) == value)
        usleep(50);
#endif
    atomic_fetch_sub(&count->sleepers, 1);
}

/* Waits for another value, for a while in a loop and then asleep. Returns whether it may be asked again in the loop. */
static int wait_a_little(team_count *count, int value, int spins)
{
    if (spins > 0)
        PAUSE();
    else
        sleep_while(count, value);
    return spins - 1;
}

static void wake_all(team_count *count)
{
#ifdef __linux__
    if (atomic_load(&count->sleepers))
        syscall(SYS_futex, &count->value, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
#else
    (void)count;
#endif
}

void team_count_up(team_count *count, int last)
{
    if (atomic_fetch_add(&count->value, 1) + 1 == last)
        wake_all(count);
}

void team_wait(tei_team *team, team_count *count, int last)
{
    int value, spins = team ? team->spins : 0;
    while ((value = atomic_load_explicit(&count->value, memory_order_acquire)) < last)
        spins = wait_a_little(count, value, spins);
}

/* Whether the worker may work on what the caller works on. It has to leave again. */
static int join(tei_team *team)
{
    int inside = atomic_load(&team->inside.value);
    while (inside & OPEN)
        if (atomic_compare_exchange_weak(&team->inside.value, &inside, inside + 1))
            return 1;
    return 0;
}

static void leave(tei_team *team)
{
    if (atomic_fetch_sub(&team->inside.value, 1) == 1)
        wake_all(&team->inside);
}

static void *worker(void *start)
{
    const worker_start mine = *(worker_start *)start;
    tei_team *team = mine.team;
    int task = atomic_load(&team->task.value), now;
    free(start);
    atomic_fetch_add(&team->ready, 1);
    for (;; task = now) {
        for (int spins = team->spins; (now = atomic_load_explicit(&team->task.value, memory_order_acquire)) == task;)
            spins = wait_a_little(&team->task, task, spins);
        if (team->stopping)
            return NULL;
        if (join(team)) {
            team->work(team->argument, mine.number);
            leave(team);
        }
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
        atomic_store(&team->task.sleepers, 0);
        atomic_store(&team->inside.sleepers, 0);
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
    if (!team->running) {
        work(argument, 0);
        return;
    }
    team->work = work;
    team->argument = argument;
    atomic_store(&team->inside.value, OPEN);
    keep_off_this_cpu(team);
    atomic_fetch_add(&team->task.value, 1);
    wake_all(&team->task);
    work(argument, 0);
    atomic_fetch_sub(&team->inside.value, OPEN);
    int inside, spins = team->spins;
    while ((inside = atomic_load_explicit(&team->inside.value, memory_order_acquire)) > 0)
        spins = wait_a_little(&team->inside, inside, spins);
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
        atomic_fetch_add(&team->task.value, 1);
        wake_all(&team->task);
        for (int i = 0; i < team->running; i++)
            pthread_join(team->workers[i], NULL);
    }
    free(team->workers);
    free(team);
}
