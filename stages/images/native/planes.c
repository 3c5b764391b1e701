/* Operations on the three planes of an image, rows of bytes: each byte by a table, pixels from elsewhere, colour,
   sharpness. Arithmetic is that of TensorFlow's kernels, operation by operation, in single precision. */

#include <stddef.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

enum { PLANES = 3, LEVELS = 256 };

void vitpipe_histograms(const unsigned char *restrict planes, size_t size, long long *restrict counts) {
    memset(counts, 0, sizeof *counts * PLANES * LEVELS);
    for (size_t c = 0; c < PLANES; c++, planes += size, counts += LEVELS)
        for (size_t i = 0; i < size; i++)
            counts[planes[i]]++;
}

void vitpipe_tables(unsigned char *restrict planes, size_t size, const unsigned char *restrict tables) {
    for (size_t c = 0; c < PLANES; c++, planes += size, tables += LEVELS)
        for (size_t i = 0; i < size; i++)
            planes[i] = tables[planes[i]];
}

/* What was at (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5]), to the nearest pixel, halves away from zero. */
void vitpipe_nearest(const unsigned char *restrict planes, size_t height, size_t width, const float *restrict m,
                     int fill, unsigned char *restrict to) {
    const size_t size = height * width;
    const double right = (double)width - 0.5, bottom = (double)height - 0.5;
    memset(to, fill, PLANES * size);
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++, to++) {
            const float from_x = m[0] * (float)x + m[1] * (float)y + m[2];
            const float from_y = m[3] * (float)x + m[4] * (float)y + m[5];
            if (!(from_x > -0.5 && from_x < right && from_y > -0.5 && from_y < bottom))
                continue;
            const size_t at = (size_t)(from_y + 0.5) * width + (size_t)(from_x + 0.5);
            for (size_t c = 0; c < PLANES; c++)
                to[c * size] = planes[c * size + at];
        }
}

static inline unsigned char blended(float one, float other, float factor) {
    const float mixed = one + factor * (other - one);
    return (unsigned char)(mixed < 0 ? 0 : mixed > 255 ? 255 : mixed);
}

FOR_EACH_CPU
void vitpipe_colour(const unsigned char *restrict planes, size_t size, float factor, unsigned char *restrict to) {
    const float level = 1.0f / 255;
    for (size_t i = 0; i < size; i++) {
        const float red = (float)planes[i] * level * 0.2989f, green = (float)planes[size + i] * level * 0.587f;
        const float blue = (float)planes[2 * size + i] * level * 0.114f;
        const float grey = (float)(int)((red + green + blue) * 255.5f);
        for (size_t c = 0; c < PLANES; c++)
            to[c * size + i] = blended(grey, (float)planes[c * size + i], factor);
    }
}

/* The mean of a pixel, counted five times, and its neighbours: thirteenths, rounded, or cut off. Where they make a whole
   level, how TensorFlow adds up decides what is cut off: nine products, each fused with its addition. */
static unsigned char smoothed(const unsigned char *middle, size_t width, int rounded) {
    const unsigned char *row = middle - width - 1;
    int sum = 4 * *middle;
    for (int y = 0; y < 3; y++, row += width)
        sum += row[0] + row[1] + row[2];
    if (rounded || sum % 13)
        return (unsigned char)((sum + (rounded ? 6 : 0)) / 13);
    float mean = 0;
    row = middle - width - 1;
    for (int tap = 0; tap < 9; tap++)
        mean = (float)((double)(tap == 4 ? 5.0f / 13 : 1.0f / 13) * row[tap / 3 * width + tap % 3] + mean);
    return (unsigned char)(mean > 255 ? 255 : mean);
}

void vitpipe_smooth(const unsigned char *restrict planes, size_t height, size_t width, int rounded,
                    unsigned char *restrict to) {
    for (size_t c = 0; c < PLANES; c++, planes += height * width, to += height * width) {
        memcpy(to, planes, height * width);
        for (size_t y = 1; y + 1 < height; y++)
            for (size_t x = 1; x + 1 < width; x++)
                to[y * width + x] = smoothed(planes + y * width + x, width, rounded);
    }
}

FOR_EACH_CPU
void vitpipe_blend(const unsigned char *restrict planes, size_t bytes, float factor, unsigned char *restrict to) {
    for (size_t i = 0; i < bytes; i++)
        to[i] = blended((float)to[i], (float)planes[i], factor);
}
