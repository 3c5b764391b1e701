/* Bytes of two images blended: a share of one and the rest of the other, rounded, halves to even, in double precision;
 * or a box of one pasted into the other. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "steps.h"

enum { BITS = 22, MOST = 255, LOW_BITS = 7 };
#define UNSURE 1e-9 /* of a level; double precision errs by less than 1e-12 */

/* Whether whole numbers give what double precision does for all differences of two bytes: those below 0 give the same
 * as those above, where none is a half. */
INLINE int exact_by_bits_body(double share, int32_t bits) {
    int other = 0;
    for (int32_t difference = 1; difference <= MOST; difference++) {
        const double value = share * difference + 0.5, rounded = floor(value);
        other |= (value - rounded < UNSURE) | (rounded + 1 - value < UNSURE);
        other |= (difference * bits + (1 << (BITS - 1))) >> BITS != (int32_t)rounded;
        other |= (-difference * bits + (1 << (BITS - 1))) >> BITS != -(int32_t)rounded;
    }
    return !other;
}
FOR_EACH_CPU(int, exact_by_bits, (double share, int32_t bits), (share, bits))

#ifdef HAS_INTRINSICS
#include <immintrin.h>

enum { AT_ONCE = 32 };

/* A difference and the same shifted by seven bits, times the lower and the upper bits of the share: as words. */
INLINE WIDE __m256i rounded_products(__m256i differences, __m256i bits) {
    const __m256i shifted = _mm256_slli_epi16(differences, LOW_BITS), half = _mm256_set1_epi32(1 << (BITS - 1));
    const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(differences, shifted), bits);
    const __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(differences, shifted), bits);
    return _mm256_packs_epi32(_mm256_srai_epi32(_mm256_add_epi32(low, half), BITS),
                              _mm256_srai_epi32(_mm256_add_epi32(high, half), BITS));
}

/* Returns how many are done. */
WIDE static size_t mix_by_bits_wide(unsigned char *one, const unsigned char *other, size_t size, int32_t bits) {
    const __m256i parts = _mm256_set1_epi32(bits >> LOW_BITS << 16 | (bits & ((1 << LOW_BITS) - 1)));
    const __m256i none = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + AT_ONCE <= size; i += AT_ONCE) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(one + i));
        const __m256i b = _mm256_loadu_si256((const __m256i *)(other + i));
        const __m256i low = _mm256_unpacklo_epi8(b, none), high = _mm256_unpackhi_epi8(b, none);
        const __m256i less = _mm256_sub_epi16(_mm256_unpacklo_epi8(a, none), low);
        const __m256i more = _mm256_sub_epi16(_mm256_unpackhi_epi8(a, none), high);
        _mm256_storeu_si256((__m256i *)(one + i),
                            _mm256_packus_epi16(_mm256_add_epi16(low, rounded_products(less, parts)),
                                                _mm256_add_epi16(high, rounded_products(more, parts))));
    }
    return i;
}
#else
static size_t mix_by_bits_wide(unsigned char *one, const unsigned char *other, size_t size, int32_t bits) {
    (void)one, (void)other, (void)size, (void)bits;
    return 0;
}
#endif

static void mix_by_bits(unsigned char *one, const unsigned char *other, size_t size, int32_t bits) {
    for (size_t i = has_wide() ? mix_by_bits_wide(one, other, size, bits) : 0; i < size; i++)
        one[i] = (unsigned char)(other[i] + (((one[i] - other[i]) * bits + (1 << (BITS - 1))) >> BITS));
}

INLINE void mix_doubles_body(unsigned char *restrict one, const unsigned char *restrict other, size_t size, double share) {
    const double rest = 1 - share;
    for (size_t i = 0; i < size; i++)
        one[i] = (unsigned char)rint(share * one[i] + rest * other[i]);
}
FOR_EACH_CPU(void, mix_doubles,
             (unsigned char *restrict one, const unsigned char *restrict other, size_t size, double share),
             (one, other, size, share))

/* Into `one`. */
void vitpipe_mix(unsigned char *one, const unsigned char *other, size_t size, double share) {
    const int32_t bits = (int32_t)rint(share * (1 << BITS));
    if (!exact_by_bits(share, bits))
        mix_doubles(one, other, size, share);
    else if (bits < 1 << BITS) /* else the other has no share that shows, and the upper part would be no word */
        mix_by_bits(one, other, size, bits);
}

/* Bytes `begin` to `end` of rows of `width`, `top` to `bottom` of each of `planes` of `height` rows, into `one`. */
void vitpipe_paste(unsigned char *one, const unsigned char *other, size_t planes, size_t height, size_t width,
                   size_t top, size_t bottom, size_t begin, size_t end) {
    for (size_t c = 0; c < planes && begin < end; c++)
        for (size_t y = top; y < bottom; y++) {
            const size_t at = (c * height + y) * width + begin;
            memcpy(one + at, other + at, end - begin);
        }
}
