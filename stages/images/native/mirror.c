/* Rows of bytes copied back to front. */

#include <stddef.h>

#include "resize.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

FOR_EACH_CPU
void vitpipe_mirror(const unsigned char *restrict from, size_t rows, size_t width, unsigned char *restrict to) {
    for (size_t y = 0; y < rows; y++, from += width, to += width)
        for (size_t x = 0; x < width; x++)
            to[x] = from[width - 1 - x];
}
