/* What the rows of a product's input become before they are multiplied: rows of 4-byte groups, and for integers what
 * turns their sums back into floats. Each row by itself. */

typedef struct {
    const char *p;        /* the first row */
    size_t stride;        /* bytes from one row to the next */
    const float *scale;   /* integers: of each row */
    const int32_t *zero;  /* TEI_I8: the number that stands for 0 in each row */
} operand;

#ifdef HAS_BF16
#ifndef v_pairs_of_b16
#define v_pairs_of_b16(low, high) v_pairs_b16(v_load_b16(low), v_load_b16(high))
#endif
static void to_bf16(const float *x, int width, uint16_t *out)
{
    EACH_VECTOR(width, i, n, v_store_b16(out + i, load(x + i, n));) /* zeros past the end, within the row's stride */
}
#endif

INLINE void store_b16(uint16_t *p, vf v, int n)
{
#ifdef HAS_BF16
    if (n == LANES)
        v_store_b16(p, v);
    else {
        uint16_t numbers[LANES];
        v_store_b16(numbers, v);
        memcpy(p, numbers, sizeof(uint16_t) * (size_t)n);
    }
#else
    (void)p, (void)v, (void)n;
#endif
}

INLINE float largest_size(const float *x, int width)
{
    const vf sign = v_set1(-1);
    vf largest = v_zero();
    EACH_VECTOR(width, i, n, vf v = load(x + i, n); largest = v_max(largest, v_max(v_mul(v, sign), v));)
    return v_largest(largest);
}

/* Smaller numbers are taken for 0 by integers: scales of them would not be normal numbers any more. */
#define TINY 1e-33f

#ifdef DOT_I16
#define I16_LARGEST 8191.0f
#define I16_SUM 2147483000.0f
/* A row to 16-bit integers. Its scale is as fine as it can be while no sum can leave 32 bits: by Cauchy and Schwarz no
 * sum of products, nor a part of it, is larger than |row| * |weights|, and rounding adds at most sqrt(K) / 2 to |row|. */
static float to_i16(const float *x, int width, float norm, int16_t *out)
{
    const float largest = largest_size(x, width);
    if (largest < TINY || !(largest < INFINITY)) {
        memset(out, 0, sizeof(int16_t) * up_to((size_t)width, LANES));
        return sum_of(x, width); /* next to 0, or not a number, or infinite: times 0 it is none */
    }
    const vf share = v_set1(1 / largest);
    vf squares = v_zero();
    EACH_VECTOR(width, i, n, vf v = v_mul(load(x + i, n), share); squares = v_fma(v, v, squares);)
    const float length = sqrtf(v_sum(squares)); /* of the row, in units of its largest number */
    const float room = I16_SUM / norm - 0.5f * sqrtf((float)width);
    const float steps = (length * I16_LARGEST <= room ? I16_LARGEST : room / length) / largest;
    if (!(steps < INFINITY)) /* not a number in the row */
        return steps;
    const vf by = v_set1(steps);
    EACH_VECTOR(width, i, n, vi_store_i16(out + i, vi_from_float(v_mul(load(x + i, n), by)));)
    return 1 / steps;
}
#endif

#ifdef DOT_I8
/* A row to LOWEST_I8 + 0..I8_ROW between its smallest and its largest number; `zero` stands for 0, exactly. */
INLINE float to_i8(const int half, const float *x, int width, uint8_t *out, int32_t *zero)
{
#define NUMBERS(i, n) (half ? v_keep(v_load_b16((const uint16_t *)x + i), 0, n, v_zero()) : load(x + i, n))
    vf low = v_zero();
    vf high = v_zero();
    vf finite = v_zero();
    EACH_VECTOR(width, i, n, vf v = NUMBERS(i, n); low = v_min(low, v); high = v_max(high, v);
                finite = v_fma(v, v_zero(), finite);)
    const float smallest = v_smallest(low), largest = v_largest(high);
    const float scale = fmaxf(largest / I8_ROW - smallest / I8_ROW, TINY) + v_sum(finite); /* not a number stays one */
    *zero = scale == scale ? (int32_t)rintf(-smallest / scale) + LOWEST_I8 : 0;
    const vf by = v_set1(1 / scale);
    const vi offset = vi_set1(*zero);
    EACH_VECTOR(width, i, n, vi_store_u8(out + i, vi_add(vi_from_float(v_mul(NUMBERS(i, n), by)), offset));)
#undef NUMBERS
    return scale;
}
#endif

/* The rows of x for the matrix, converted into `scratch` (see operand_bytes) where it does not take them
 * as they are; `is_there`: they were converted before. */
static operand operand_of(const tei_matrix *m, rows_of x, int rows, int is_there, char *scratch)
{
    if (m->format == TEI_F32 || m->format == TEI_F32_B16 || (m->format == TEI_BF16 && x.half))
        return (operand){(const char *)x.p, sizeof(float) * x.stride, NULL, NULL};
    const size_t stride = up_to((size_t)m->groups * 4, 64);
    float *scale = (float *)(scratch + BLOCK_ROWS * stride);
    int32_t *zero = (int32_t *)(scale + BLOCK_ROWS);
    for (int r = 0; r < rows && !is_there; r++, x.p += x.stride) {
        char *row = scratch + (size_t)r * stride;
        memset(row + stride - 64, 0, 64); /* groups that K does not fill */
        switch (m->format) {
#ifdef HAS_BF16
        case TEI_BF16: to_bf16(x.p, m->inputs, (uint16_t *)row); break;
#endif
#ifdef DOT_I16
        case TEI_I16: scale[r] = to_i16(x.p, m->inputs, m->norm, (int16_t *)row); break;
#endif
#ifdef DOT_I8
        case TEI_I8:
            scale[r] = x.half ? to_i8(1, x.p, m->inputs, (uint8_t *)row, zero + r) : to_i8(0, x.p, m->inputs, (uint8_t *)row, zero + r);
            break;
#endif
        }
    }
    return (operand){scratch, stride, scale, zero};
}

/* Bytes of scratch that `operand_of` takes for a matrix of so many groups. */
INLINE size_t operand_bytes(size_t groups) { return BLOCK_ROWS * (up_to(groups * 4, 64) + sizeof(float) + sizeof(int32_t)); }
