/* Pixels from given places: one more than where each comes from, 0 for outside. */

#include <stdlib.h>
#include <string.h>

#include "steps.h"

INLINE void interleave_all_body(const unsigned char *planes, size_t size, uint32_t *pixels) {
    for (size_t i = 0; i < size; i++)
        pixels[i] = planes[i] | (uint32_t)planes[size + i] << 8 | (uint32_t)planes[2 * size + i] << 16;
}
FOR_EACH_CPU(void, interleave_all, (const unsigned char *planes, size_t size, uint32_t *pixels), (planes, size, pixels))

void interleave(const unsigned char *planes, size_t size, uint32_t *pixels) { interleave_all(planes, size, pixels); }

enum { RUN = 16, SAMPLE = 8 };

INLINE int is_run(const int32_t *places) {
    int32_t other = 0;
    for (int32_t n = 1; n < RUN; n++)
        other |= places[n] ^ (places[0] + n);
    return !other && places[0];
}

/* Sixteen together where they come from one after another. */
INLINE void gather_runs_body(struct planes planes, const unsigned char *from, const int32_t *places, unsigned char fill) {
    const size_t size = planes.size;
    for (size_t i = 0; i < size;) {
        if (i + RUN <= size && is_run(places + i)) {
            for (size_t c = 0; c < PLANES; c++)
                memcpy(planes.at + c * size + i, from + c * size + places[i] - 1, RUN);
            i += RUN;
            continue;
        }
        for (size_t end = i + RUN < size ? i + RUN : size; i < end; i++)
            for (size_t c = 0; c < PLANES; c++)
                planes.at[c * size + i] = places[i] ? from[c * size + (uint32_t)places[i] - 1] : fill;
    }
}
FOR_EACH_CPU(void, gather_runs,
             (struct planes planes, const unsigned char *from, const int32_t *places, unsigned char fill),
             (planes, from, places, fill))

#ifdef HAS_INTRINSICS
#include <immintrin.h>

enum { AT_ONCE = 8 };

/* Returns how many pixels are done. */
WIDE static size_t gather_pixels_wide(struct planes planes, const uint32_t *from, const int32_t *places) {
    const __m256i by_colour = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i joined = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    unsigned char *const to = planes.at;
    size_t i = 0;
    for (; i + AT_ONCE <= planes.size; i += AT_ONCE) {
        const __m256i at = _mm256_loadu_si256((const __m256i *)(places + i));
        const __m256i pixels = _mm256_shuffle_epi8(_mm256_i32gather_epi32((const int *)from, at, 4), by_colour);
        const __m256i colours = _mm256_permutevar8x32_epi32(pixels, joined);
        const __m128i low = _mm256_castsi256_si128(colours);
        _mm_storel_epi64((__m128i *)(to + i), low);
        _mm_storel_epi64((__m128i *)(to + planes.size + i), _mm_unpackhi_epi64(low, low));
        _mm_storel_epi64((__m128i *)(to + 2 * planes.size + i), _mm256_extracti128_si256(colours, 1));
    }
    return i;
}
#else
static size_t gather_pixels_wide(struct planes planes, const uint32_t *from, const int32_t *places) {
    (void)planes, (void)from, (void)places;
    return 0;
}
#endif

/* The first of the pixels stands for all outside. */
static void gather_pixels(struct planes planes, const uint32_t *from, const int32_t *places) {
    for (size_t i = has_wide() ? gather_pixels_wide(planes, from, places) : 0; i < planes.size; i++) {
        const uint32_t pixel = from[places[i]];
        for (size_t c = 0; c < PLANES; c++)
            planes.at[c * planes.size + i] = (unsigned char)(pixel >> 8 * c);
    }
}

int gather(struct planes planes, unsigned char *copy, const int32_t *places, int fill) {
    size_t runs = 0, seen = 0;
    for (size_t i = 0; i + RUN <= planes.size; i += SAMPLE * RUN, seen++)
        runs += (size_t)(is_run(places + i) || !(places[i] || places[i + RUN - 1]));
    if (2 * runs > seen) {
        memcpy(copy, planes.at, PLANES * planes.size);
        gather_runs(planes, copy, places, (unsigned char)fill);
        return 0;
    }
    uint32_t *const pixels = malloc((planes.size + 1) * sizeof *pixels);
    if (!pixels)
        return 1;
    pixels[0] = (uint32_t)fill * 0x10101;
    interleave(planes.at, planes.size, pixels + 1);
    gather_pixels(planes, pixels, places);
    free(pixels);
    return 0;
}
