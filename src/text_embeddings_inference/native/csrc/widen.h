/* Numbers of the types that checkpoints are stored in, as floats. They may lie anywhere: files align nothing. */

INLINE float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE float from_b16(uint16_t bits) { return from_bits((uint32_t)bits << 16); }

/* IEEE 754 binary16, exact: exponents are 112 less than those of binary32. */
INLINE float from_f16(uint16_t bits)
{
    const uint32_t size = bits & 0x7fff;
    const float x = size < 0x7c00 ? from_bits(size << 13) * 0x1p112f : from_bits(size << 13 | 0x7f800000);
    return bits & 0x8000 ? -x : x;
}

/* n numbers of a tei_number, `stride` bytes apart. */
INLINE void widen_apart(const int type, const char *p, int64_t stride, int n, float *out)
{
    for (int i = 0; i < n; i++, p += stride) {
        uint16_t half;
        double wide;
        switch (type) {
        case TEI_NUMBER_F32: memcpy(out + i, p, sizeof *out); break;
        case TEI_NUMBER_F64: memcpy(&wide, p, sizeof wide); out[i] = (float)wide; break;
        default:
            memcpy(&half, p, sizeof half);
            out[i] = type == TEI_NUMBER_B16 ? from_b16(half) : from_f16(half);
        }
    }
}

static void widen(int type, const char *p, int64_t stride, int n, float *out)
{
    if (type == TEI_NUMBER_F32 && stride == sizeof(float))
        memcpy(out, p, sizeof(float) * (size_t)n);
    else if (type == TEI_NUMBER_B16 && stride == sizeof(uint16_t))
        widen_apart(TEI_NUMBER_B16, p, sizeof(uint16_t), n, out);
    else if (type == TEI_NUMBER_F16 && stride == sizeof(uint16_t))
        widen_apart(TEI_NUMBER_F16, p, sizeof(uint16_t), n, out);
    else
        widen_apart(type, p, stride, n, out);
}

INLINE size_t bytes_of(int type) { return type == TEI_NUMBER_F64 ? 8 : type == TEI_NUMBER_F32 ? 4 : 2; }
