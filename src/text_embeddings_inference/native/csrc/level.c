/* One level: all kernels, compiled for the CPU that the compiler's flags say. LEVEL is its name. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "level.h"

#define INLINE static inline __attribute__((always_inline, unused))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(__AVX512F__)
#include "vec_avx512.h"
#elif defined(__AVX2__)
#include "vec_avx2.h"
#elif defined(USE_NEON)
#include "vec_neon.h"
#else
#include "vec_plain.h"
#endif
#include "vmath.h"

#include "task.h"
#include "widen.h"

#include "rows.c"
#include "sequences.c"
#include "tile.h"
#ifdef HAS_AMX
#include "amx.h"
#endif
#include "operand.h"
#include "product.c"
#include "probe.c"
#include "experts.c"
#include "arrange.h"
#include "attention.c"
#include "pack.c"

static int32_t items_of(const tei_step *s, const tei_batch *batch)
{
    return s->op == TEI_ATTENTION || s->op == TEI_DISENTANGLED ? attention_items(s, batch) : batch->sequences;
}

static size_t scratch_of(const tei_step *s, const tei_batch *batch)
{
    if (s->op == TEI_LINEAR) {
        const tei_matrix *m = s->a;
        if (batch->probes)
            return operand_bytes((size_t)m->inputs) + sizeof(float) * BLOCK_ROWS * (size_t)m->inputs;
        return operand_bytes((size_t)m->groups);
    }
    if (s->op == TEI_EXPERTS) {
        expert_memory unused;
        return divide_for_experts(s, NULL, &unused);
    }
    if (s->op == TEI_ATTENTION || s->op == TEI_DISENTANGLED) {
        attention_memory unused;
        return sizeof(float) * divide(s, batch->longest, NULL, &unused);
    }
    return 0;
}

#define NAME_OF_(level) tei_level_##level
#define NAME_OF(level) NAME_OF_(level)
#define TEXT_OF_(level) #level
#define TEXT_OF(level) TEXT_OF_(level)

const tei_level NAME_OF(LEVEL) = {
    .name = TEXT_OF(LEVEL),
    .panel = PANEL,
    .groups = {[TEI_F32] = 1,
               [TEI_F32_B16] = 1,
#ifdef HAS_BF16
               [TEI_BF16] = 2,
#endif
#ifdef DOT_I16
               [TEI_I16] = 2,
#endif
#ifdef DOT_I8
               [TEI_I8] = 4,
#endif
    },
    .rowwise = {[TEI_EMBED] = step_embed,
                [TEI_LINEAR] = step_linear,
                [TEI_UNARY] = step_unary,
                [TEI_BINARY] = step_binary,
                [TEI_REDUCE] = step_reduce,
                [TEI_KEEP_LARGEST] = step_keep_largest,
                [TEI_LAYER_NORM] = step_layer_norm,
                [TEI_RMS_NORM] = step_rms_norm,
                [TEI_L2_NORM] = step_l2_norm,
                [TEI_COPY] = step_copy,
                [TEI_ROPE] = step_rope,
                [TEI_EXPERTS] = step_experts},
    .probe = probe_product,
    .items = items_of,
    .whole = {[TEI_SHIFT] = step_shift,
              [TEI_ATTENTION] = step_attention,
              [TEI_DISENTANGLED] = step_attention,
              [TEI_POOL] = step_pool},
    .scratch_bytes = scratch_of,
    .pack = pack,
};
