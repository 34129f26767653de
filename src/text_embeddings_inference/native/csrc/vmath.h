/* Functions on vectors of floats, accurate to a few units in the last place. */

/* e^x (Cephes' expf: x = n ln 2 + r, a polynomial for e^r). 0 below LEAST_POWER ln 2, about 2.4e38 from 88.4 on. */
INLINE vf v_exp(vf x)
{
    x = v_min(v_set1(88.37f), v_max(v_set1(LEAST_POWER * 0.693147f), x));
    vf n = v_round(v_mul(x, v_set1(1.44269504f)));
    vf r = v_fma(n, v_set1(-0.693359375f), x);
    r = v_fma(n, v_set1(2.12194440e-4f), r);
    vf p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_fma(p, v_mul(r, r), v_add(r, v_set1(1)));
    return v_times_power_of_2(p, n);
}

/* 2^x for x up to 126 (x = n + r, the Taylor series for 2^r). 0 below LEAST_POWER. */
INLINE vf v_exp2(vf x)
{
    x = v_max(v_set1(LEAST_POWER), x);
    const vf n = v_round(x), r = v_sub(x, n);
    vf p = v_set1(1.5252733804e-5f);
    p = v_fma(p, r, v_set1(1.5403530394e-4f));
    p = v_fma(p, r, v_set1(1.3333558146e-3f));
    p = v_fma(p, r, v_set1(9.6181291076e-3f));
    p = v_fma(p, r, v_set1(5.5504108665e-2f));
    p = v_fma(p, r, v_set1(2.4022650696e-1f));
    p = v_fma(p, r, v_set1(6.9314718056e-1f));
    p = v_fma(p, r, v_set1(1));
    return v_times_power_of_2(p, n);
}

/* The same to four digits, for results that become bfloat16 numbers (a polynomial of least relative error, 7.5e-5). */
INLINE vf v_exp2_rough(vf x)
{
    x = v_max(v_set1(LEAST_POWER), x);
    const vf n = v_round(x), r = v_sub(x, n);
    vf p = v_set1(0.05517167f);
    p = v_fma(p, r, v_set1(0.24261112f));
    p = v_fma(p, r, v_set1(0.69326099f));
    p = v_fma(p, r, v_set1(0.99992807f));
    return v_times_power_of_2(p, n);
}

/* erf x = x P(x^2) / Q(x^2), clamped to +-4 where it is 1 in float32 (the coefficients of XLA's and Eigen's ErfImpl32). */
INLINE vf v_erf(vf x)
{
    x = v_min(v_set1(4), v_max(v_set1(-4), x));
    vf u = v_mul(x, x);
    vf p = v_set1(-2.72614225801306e-10f);
    p = v_fma(p, u, v_set1(2.77068142495902e-08f));
    p = v_fma(p, u, v_set1(-2.10102402082508e-06f));
    p = v_fma(p, u, v_set1(-5.69250639462346e-05f));
    p = v_fma(p, u, v_set1(-7.34990630326855e-04f));
    p = v_fma(p, u, v_set1(-2.95459980854025e-03f));
    p = v_fma(p, u, v_set1(-1.60960333262415e-02f));
    vf q = v_set1(-1.45660718464996e-05f);
    q = v_fma(q, u, v_set1(-2.13374055278905e-04f));
    q = v_fma(q, u, v_set1(-1.68282697438203e-03f));
    q = v_fma(q, u, v_set1(-7.37332916720468e-03f));
    q = v_fma(q, u, v_set1(-1.42647390514189e-02f));
    return v_div(v_mul(x, p), q);
}

/* tanh x = x P(x^2) / Q(x^2), clamped to +-7.9 (the coefficients of Eigen's generic_fast_tanh_float). */
INLINE vf v_tanh(vf x)
{
    x = v_min(v_set1(7.90531110763549805f), v_max(v_set1(-7.90531110763549805f), x));
    vf u = v_mul(x, x);
    vf p = v_set1(-2.76076847742355e-16f);
    p = v_fma(p, u, v_set1(2.00018790482477e-13f));
    p = v_fma(p, u, v_set1(-8.60467152213735e-11f));
    p = v_fma(p, u, v_set1(5.12229709037114e-08f));
    p = v_fma(p, u, v_set1(1.48572235717979e-05f));
    p = v_fma(p, u, v_set1(6.37261928875436e-04f));
    p = v_fma(p, u, v_set1(4.89352455891786e-03f));
    vf q = v_set1(1.19825839466702e-06f);
    q = v_fma(q, u, v_set1(1.18534705686654e-04f));
    q = v_fma(q, u, v_set1(2.26843463243900e-03f));
    q = v_fma(q, u, v_set1(4.89352518554385e-03f));
    return v_div(v_mul(x, p), q);
}

INLINE vf v_sigmoid(vf x) { return v_div(v_set1(1), v_add(v_set1(1), v_exp(v_sub(v_zero(), x)))); }

/* x Phi(x) */
INLINE vf v_gelu(vf x)
{
    vf half = v_mul(x, v_set1(0.5f));
    return v_fma(half, v_erf(v_mul(x, v_set1(0.70710678118654752f))), half);
}

/* The same to 2e-5, for results that become numbers of 16 bits or fewer: Phi(x) = 1/2 + x P(x^2), clamped to +-3.8. */
INLINE vf v_gelu_rough(vf x)
{
    const vf z = v_min(v_set1(3.8f), v_max(v_set1(-3.8f), x)), u = v_mul(z, z);
    vf p = v_set1(-1.8030889e-09f);
    p = v_fma(p, u, v_set1(1.3228569e-07f));
    p = v_fma(p, u, v_set1(-4.291412e-06f));
    p = v_fma(p, u, v_set1(8.224336e-05f));
    p = v_fma(p, u, v_set1(-0.0010535426f));
    p = v_fma(p, u, v_set1(0.009664781f));
    p = v_fma(p, u, v_set1(-0.06614257f));
    p = v_fma(p, u, v_set1(0.39881095f));
    return v_mul(x, v_fma(z, p, v_set1(0.5f)));
}

/* Its approximation by tanh (Hendrycks & Gimpel, arXiv:1606.08415), as (1 + tanh y) / 2 = sigmoid 2y. */
INLINE vf v_gelu_tanh(vf x)
{
    const vf inner = v_fma(v_mul(v_mul(x, x), x), v_set1(0.044715f), x);
    return v_mul(x, v_sigmoid(v_mul(v_set1(1.59576912160573071f), inner)));
}

/* The function `kind` (tei_unary) of a vector; `kind` is known where it is inlined. */
INLINE vf v_unary(const int kind, vf x)
{
    switch (kind) {
    case TEI_GELU: return v_gelu(x);
    case TEI_GELU_ROUGH: return v_gelu_rough(x);
    case TEI_GELU_TANH: return v_gelu_tanh(x);
    case TEI_RELU: return v_max(v_zero(), x);
    case TEI_SILU: return v_mul(x, v_sigmoid(x));
    case TEI_TANH: return v_tanh(x);
    case TEI_SIGMOID: return v_sigmoid(x);
    case TEI_SQRT: return v_sqrt(x);
    case TEI_ROUND: return v_round(x);
    default: return x;
    }
}

/* Calls f(kind, ...) with `kind` known to the compiler. */
#define FOR_UNARY(kind, f, ...)                              \
    switch (kind) {                                          \
    case TEI_GELU: f(TEI_GELU, __VA_ARGS__); break;          \
    case TEI_GELU_ROUGH: f(TEI_GELU_ROUGH, __VA_ARGS__); break; \
    case TEI_GELU_TANH: f(TEI_GELU_TANH, __VA_ARGS__); break; \
    case TEI_RELU: f(TEI_RELU, __VA_ARGS__); break;          \
    case TEI_SILU: f(TEI_SILU, __VA_ARGS__); break;          \
    case TEI_TANH: f(TEI_TANH, __VA_ARGS__); break;          \
    case TEI_SIGMOID: f(TEI_SIGMOID, __VA_ARGS__); break;    \
    case TEI_SQRT: f(TEI_SQRT, __VA_ARGS__); break;          \
    case TEI_ROUND: f(TEI_ROUND, __VA_ARGS__); break;        \
    default: f(TEI_IDENTITY, __VA_ARGS__); break;            \
    }
