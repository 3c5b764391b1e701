/* Rows of a PNG as differences from the pixels to the left and above, undone a pixel at a time in vectors. */

#include <stdint.h>
#include <string.h>

#include "unfilter.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline)) /* so that the size of a pixel is a constant */

enum { NONE, SUB, UP, AVERAGE, PAETH };
typedef uint8_t bytes8 __attribute__((vector_size(8)));
typedef int16_t words8 __attribute__((vector_size(16)));

INLINE words8 load(const unsigned char *from, size_t pixel_bytes) {
    bytes8 pixel = {0};
    memcpy(&pixel, from, pixel_bytes > 4 ? 8 : 4);
    return __builtin_convertvector(pixel, words8);
}

INLINE void store(unsigned char *to, words8 pixel, size_t pixel_bytes) {
    const bytes8 low = __builtin_convertvector(pixel & 255, bytes8);
    memcpy(to, &low, pixel_bytes > 4 ? 8 : 4);
}

INLINE words8 either(words8 is_one, words8 one, words8 other) { return (is_one & one) | (~is_one & other); }

INLINE words8 lower(words8 one, words8 other) {
#ifdef __SSE2__
    return (words8)_mm_min_epi16((__m128i)one, (__m128i)other);
#else
    return either(one < other, one, other);
#endif
}

INLINE words8 higher(words8 one, words8 other) {
#ifdef __SSE2__
    return (words8)_mm_max_epi16((__m128i)one, (__m128i)other);
#else
    return either(one > other, one, other);
#endif
}

/* Of left, above and above left, what is nearest to left + above - above left: the lower of left and above where the
 * corner is at least as high as both by so much, and so on. */
INLINE words8 nearest(words8 left, words8 above, words8 corner) {
    const words8 low = lower(left, above), high = higher(left, above), third = 3 * corner - above - left;
    return either(third <= low, high, either(high <= third, low, corner));
}

INLINE void by_vectors(int filter, const unsigned char *raw, const unsigned char *above, unsigned char *to, size_t bytes,
                       size_t pixel_bytes) {
    words8 left = {0}, corner = {0};
    for (size_t at = 0; at < bytes; at += pixel_bytes) {
        const words8 top = filter == SUB ? corner : load(above + at, pixel_bytes), given = load(raw + at, pixel_bytes);
        left = given + (filter == SUB ? left : filter == AVERAGE ? (left + top) >> 1 : nearest(left, top, corner));
        left &= 255;
        corner = top;
        store(to + at, left, pixel_bytes);
    }
}

INLINE int nearest_of(int left, int above, int corner) {
    const int rise = above - corner, run = left - corner, both = rise + run;
    const int to_left = rise < 0 ? -rise : rise, to_above = run < 0 ? -run : run, to_corner = both < 0 ? -both : both;
    return to_left <= to_above && to_left <= to_corner ? left : to_above <= to_corner ? above : corner;
}

INLINE void by_bytes(int filter, const unsigned char *raw, const unsigned char *above, unsigned char *to, size_t bytes,
                     size_t pixel_bytes) {
    for (size_t at = 0; at < bytes; at++) {
        const int left = to[(ptrdiff_t)at - (ptrdiff_t)pixel_bytes], top = above[at];
        const int corner = above[(ptrdiff_t)at - (ptrdiff_t)pixel_bytes];
        to[at] = (unsigned char)(raw[at] + (filter == SUB       ? left
                                            : filter == AVERAGE ? (left + top) >> 1
                                                                : nearest_of(left, top, corner)));
    }
}

INLINE void by_pixels(int filter, const unsigned char *raw, const unsigned char *above, unsigned char *to, size_t bytes,
                      size_t pixel_bytes) {
    switch (pixel_bytes) {
    case 1: by_bytes(filter, raw, above, to, bytes, 1); break;
    case 2: by_bytes(filter, raw, above, to, bytes, 2); break;
    case 3: by_vectors(filter, raw, above, to, bytes, 3); break;
    case 4: by_vectors(filter, raw, above, to, bytes, 4); break;
    case 6: by_vectors(filter, raw, above, to, bytes, 6); break;
    default: by_vectors(filter, raw, above, to, bytes, 8);
    }
}

int unfilter(int filter, const unsigned char *raw, const unsigned char *above, unsigned char *to, size_t bytes,
             size_t pixel_bytes) {
    switch (filter) {
    case NONE: memcpy(to, raw, bytes); return 0;
    case UP:
        for (size_t at = 0; at < bytes; at++)
            to[at] = (unsigned char)(raw[at] + above[at]);
        return 0;
    case SUB: by_pixels(SUB, raw, above, to, bytes, pixel_bytes); return 0;
    case AVERAGE: by_pixels(AVERAGE, raw, above, to, bytes, pixel_bytes); return 0;
    case PAETH: by_pixels(PAETH, raw, above, to, bytes, pixel_bytes); return 0;
    default: return 1;
    }
}
