/* From weights `[N, K]` to the panels of a product, see product.c. Outputs and inputs that only fill up are 0. */

static uint16_t round_to_b16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 64); /* not a number: stays one */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Calls `put` for each place of the panels: `at` of the output, input k; x is its weight or 0. */
#define EACH_PLACE(m, weights, group, at, output, x, put)                                                       \
    for (size_t p_ = 0, at = 0; p_ < up_to((size_t)(m)->outputs, PANEL); p_ += PANEL)                           \
        for (size_t g_ = 0; g_ < (size_t)(m)->groups; g_++)                                                     \
            for (size_t output = p_; output < p_ + PANEL; output++)                                             \
                for (size_t k_ = g_ * (group); k_ < (g_ + 1) * (group); k_++, at++) {                           \
                    const float x = output < (size_t)(m)->outputs && k_ < (size_t)(m)->inputs                   \
                                        ? (weights)[output * (size_t)(m)->inputs + k_]                          \
                                        : 0;                                                                    \
                    put                                                                                         \
                }

/* The scale of each output's integers, at most `largest` in size, into `scale`. */
static void scale_outputs(const float *weights, const tei_matrix *m, float largest, float *scale)
{
    for (int n = 0; n < m->outputs; n++) {
        float size = largest_size(weights + (size_t)n * (size_t)m->inputs, m->inputs);
        scale[n] = size > 0 ? size / largest : 1;
    }
}

static void pack_i8(const float *weights, tei_matrix *m, int8_t *panels)
{
    float *scale = (float *)m->scale;
    int32_t *sums = (int32_t *)m->sums;
    scale_outputs(weights, m, 127, scale);
    memset(sums, 0, sizeof(int32_t) * up_to((size_t)m->outputs, PANEL));
    EACH_PLACE(m, weights, 4, at, output, x, {
        panels[at] = x == 0 ? 0 : (int8_t)rintf(x / scale[output]);
        sums[output] += panels[at];
    })
}

#define I16_WEIGHT 2047.0f
static void pack_i16(const float *weights, tei_matrix *m, int16_t *panels)
{
    float *scale = (float *)m->scale;
    scale_outputs(weights, m, I16_WEIGHT, scale);
    EACH_PLACE(m, weights, 2, at, output, x, { panels[at] = x == 0 ? 0 : (int16_t)rintf(x / scale[output]); })
    double largest = 1;
    for (int n = 0; n < m->outputs; n++) {
        double squares = 0;
        for (int k = 0; k < m->inputs; k++) {
            const double q = rintf(weights[(size_t)n * (size_t)m->inputs + (size_t)k] / scale[n]);
            squares += q * q;
        }
        largest = squares > largest ? squares : largest;
    }
    m->norm = (float)(sqrt(largest) * 1.0001);
}

static void pack(const float *weights, tei_matrix *m)
{
    void *panels = (void *)m->panels; /* made for this, and constant from here on */
    switch (m->format) {
    case TEI_F32: EACH_PLACE(m, weights, 1, at, output, x, { ((float *)panels)[at] = x; }) break;
    case TEI_F32_B16: EACH_PLACE(m, weights, 1, at, output, x, { ((uint16_t *)panels)[at] = round_to_b16(x); }) break;
    case TEI_BF16: EACH_PLACE(m, weights, 2, at, output, x, { ((uint16_t *)panels)[at] = round_to_b16(x); }) break;
    case TEI_I16: pack_i16(weights, m, panels); break;
    case TEI_I8: pack_i8(weights, m, panels); break;
    }
}
