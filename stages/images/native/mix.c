/* Bytes of two images blended: a share of one and the rest of the other, rounded, halves to even, in double precision. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

enum { BITS = 22, MOST = 255 };
#define UNSURE 1e-9 /* of a level; double precision errs by less than 1e-12 */

/* Whether whole numbers give what double precision does for all differences of two bytes. */
FOR_EACH_CPU
static int exact_by_bits(double share, int32_t bits) {
    for (int difference = -MOST; difference <= MOST; difference++) {
        const double value = share * difference, rounded = floor(value + 0.5);
        if (fabs(value + 0.5 - rint(value + 0.5)) < UNSURE && difference)
            return 0;
        if ((difference * bits + (1 << (BITS - 1))) >> BITS != (int)rounded)
            return 0;
    }
    return 1;
}

FOR_EACH_CPU
static void mix_by_bits(unsigned char *restrict one, const unsigned char *restrict other, size_t size, int32_t bits) {
    for (size_t i = 0; i < size; i++)
        one[i] = (unsigned char)(other[i] + (((one[i] - other[i]) * bits + (1 << (BITS - 1))) >> BITS));
}

FOR_EACH_CPU
static void mix_doubles(unsigned char *restrict one, const unsigned char *restrict other, size_t size, double share) {
    const double rest = 1 - share;
    for (size_t i = 0; i < size; i++)
        one[i] = (unsigned char)rint(share * one[i] + rest * other[i]);
}

/* Into `one`. */
void vitpipe_mix(unsigned char *one, const unsigned char *other, size_t size, double share) {
    const int32_t bits = (int32_t)rint(share * (1 << BITS));
    if (exact_by_bits(share, bits))
        mix_by_bits(one, other, size, bits);
    else
        mix_doubles(one, other, size, share);
}
