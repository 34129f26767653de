/* Which instructions this CPU has, and the operating system keeps the registers of: by CPUID and XGETBV (Intel SDM, volume
 * 2A, tables of leaf 7). Levels that were not compiled are left out (LEVEL_... is given by build.py for those that were). */
#include "cpu.h"

#include "level.h"

static int always(void) { return 1; }

#define UNUSED __attribute__((unused)) /* where a level is not compiled */

#if defined(__x86_64__)
#include <cpuid.h>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Bits of XCR0: which registers are kept. */
#define KEPT_AVX 0x6u
#define KEPT_AVX512 0xe6u
#define KEPT_AMX 0x60000u

static unsigned kept_registers(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

/* Whether all bits are set in registers B, C, D of leaf 7, and A of its subleaf 1. */
static int has(unsigned wanted_b, unsigned wanted_c, unsigned wanted_a1)
{
    unsigned a = 0, b = 0, c = 0, d = 0, a1 = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    if (a >= 1) {
        unsigned b1, c1, d1;
        __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1);
    }
    return (b & wanted_b) == wanted_b && (c & wanted_c) == wanted_c && (a1 & wanted_a1) == wanted_a1;
}

#define B_AVX2 (1u << 5)
#define B_AVX512 (1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) /* F, DQ, BW, VL */
#define C_AVX512_VNNI (1u << 11)
#define D_AMX (1u << 22 | 1u << 24 | 1u << 25) /* BF16, TILE, INT8 */
#define A1_AVX_VNNI (1u << 4)
#define A1_AVX512_BF16 (1u << 5)

static int keeps(unsigned registers) { return (kept_registers() & registers) == registers; }

UNUSED static int has_avx2(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    return (c & bit_FMA) && keeps(KEPT_AVX) && has(B_AVX2, 0, 0);
}
UNUSED static int has_avx_vnni(void) { return has_avx2() && has(B_AVX2, 0, A1_AVX_VNNI); }
UNUSED static int has_avx512(void) { return has_avx2() && keeps(KEPT_AVX512) && has(B_AVX512, 0, 0); }
UNUSED static int has_avx512_vnni(void) { return has_avx512() && has(B_AVX512, C_AVX512_VNNI, 0); }
UNUSED static int has_avx512_bf16(void) { return has_avx512_vnni() && has(B_AVX512, C_AVX512_VNNI, A1_AVX512_BF16); }

/* The tiles' 8 KB are kept for a process that asked for it (Documentation/arch/x86/xstate.rst of the kernel). */
UNUSED static int may_use_tiles(void)
{
#ifdef __linux__
    const long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return 0;
#endif
}
UNUSED static int has_amx(void)
{
    unsigned a, b, c, d;
    if (!has_avx512_bf16() || !keeps(KEPT_AMX) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    return (d & D_AMX) == D_AMX && may_use_tiles();
}
#endif

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

/* As the kernel's <asm/hwcap.h> numbers them, for older headers lack some. */
#define HWCAP_HAS_ASIMD (1ul << 1)
#define HWCAP_HAS_ASIMDDP (1ul << 20)
#define HWCAP2_HAS_BF16 (1ul << 14)

static int tells(unsigned long which, unsigned long wanted) { return (getauxval(which) & wanted) == wanted; }
UNUSED static int has_neon(void) { return tells(AT_HWCAP, HWCAP_HAS_ASIMD); }
UNUSED static int has_neon_dot(void) { return has_neon() && tells(AT_HWCAP, HWCAP_HAS_ASIMDDP); }
UNUSED static int has_neon_bf16(void) { return has_neon_dot() && tells(AT_HWCAP2, HWCAP2_HAS_BF16); }
#endif

#define LEVEL_OF(name) extern const tei_level tei_level_##name;
#ifdef LEVEL_AMX
LEVEL_OF(amx)
#endif
#ifdef LEVEL_AVX512_BF16
LEVEL_OF(avx512_bf16)
#endif
#ifdef LEVEL_AVX512_VNNI
LEVEL_OF(avx512_vnni)
#endif
#ifdef LEVEL_AVX512
LEVEL_OF(avx512)
#endif
#ifdef LEVEL_AVX_VNNI
LEVEL_OF(avx_vnni)
#endif
#ifdef LEVEL_AVX2
LEVEL_OF(avx2)
#endif
#ifdef LEVEL_NEON_BF16
LEVEL_OF(neon_bf16)
#endif
#ifdef LEVEL_NEON_DOT
LEVEL_OF(neon_dot)
#endif
#ifdef LEVEL_NEON
LEVEL_OF(neon)
#endif
LEVEL_OF(plain)

const level_choice level_choices[] = {
#ifdef LEVEL_AMX
    {&tei_level_amx, has_amx},
#endif
#ifdef LEVEL_AVX512_BF16
    {&tei_level_avx512_bf16, has_avx512_bf16},
#endif
#ifdef LEVEL_AVX512_VNNI
    {&tei_level_avx512_vnni, has_avx512_vnni},
#endif
#ifdef LEVEL_AVX512
    {&tei_level_avx512, has_avx512},
#endif
#ifdef LEVEL_AVX_VNNI
    {&tei_level_avx_vnni, has_avx_vnni},
#endif
#ifdef LEVEL_AVX2
    {&tei_level_avx2, has_avx2},
#endif
#ifdef LEVEL_NEON_BF16
    {&tei_level_neon_bf16, has_neon_bf16},
#endif
#ifdef LEVEL_NEON_DOT
    {&tei_level_neon_dot, has_neon_dot},
#endif
#ifdef LEVEL_NEON
    {&tei_level_neon, has_neon},
#endif
    {&tei_level_plain, always},
    {0, 0},
};
