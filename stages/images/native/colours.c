/* Colour, contrast and sharpness as big_vision (by TensorFlow), Pillow and torchvision have them: in single precision,
 * operation by operation, and fused where they fuse. */

#include <math.h>

#include "steps.h"

/* What torchvision makes of one level and a grey. */
INLINE unsigned char mixed(float level, float grey, float factor, float rest) {
    return as_level(fmaf(grey, rest, level * factor));
}

INLINE float tensorflows_grey(float red, float green, float blue) {
    const float level = 1.0f / 255;
    return (float)(int)((red * level * 0.2989f + green * level * 0.587f + blue * level * 0.114f) * 255.5f);
}

INLINE float torchvisions_grey(float red, float green, float blue) {
    return (float)(int)fmaf(blue, 0.114f, fmaf(green, 0.587f, red * 0.2989f));
}

INLINE int pillows_grey(int red, int green, int blue) {
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
}

INLINE void by_tensorflow_body(unsigned char *restrict at, size_t size, float factor) {
    unsigned char *restrict const green = at + size, *restrict const blue = at + 2 * size;
    for (size_t i = 0; i < size; i++) {
        const float grey = tensorflows_grey(at[i], green[i], blue[i]);
        at[i] = blended(grey, at[i], factor);
        green[i] = blended(grey, green[i], factor);
        blue[i] = blended(grey, blue[i], factor);
    }
}
FOR_EACH_CPU(void, by_tensorflow, (unsigned char *restrict at, size_t size, float factor), (at, size, factor))

INLINE void by_pillow_body(unsigned char *restrict at, size_t size, float factor) {
    unsigned char *restrict const green = at + size, *restrict const blue = at + 2 * size;
    for (size_t i = 0; i < size; i++) {
        const float grey = (float)pillows_grey(at[i], green[i], blue[i]);
        at[i] = blended(grey, at[i], factor);
        green[i] = blended(grey, green[i], factor);
        blue[i] = blended(grey, blue[i], factor);
    }
}
FOR_EACH_CPU(void, by_pillow, (unsigned char *restrict at, size_t size, float factor), (at, size, factor))

INLINE void by_torchvision_body(unsigned char *restrict at, size_t size, float factor, float rest) {
    unsigned char *restrict const green = at + size, *restrict const blue = at + 2 * size;
    for (size_t i = 0; i < size; i++) {
        const float grey = torchvisions_grey(at[i], green[i], blue[i]);
        at[i] = mixed(at[i], grey, factor, rest);
        green[i] = mixed(green[i], grey, factor, rest);
        blue[i] = mixed(blue[i], grey, factor, rest);
    }
}
FOR_EACH_CPU(void, by_torchvision,
             (unsigned char *restrict at, size_t size, float factor, float rest),
             (at, size, factor, rest))

void change_colour(struct planes planes, enum program program, double factor) {
    if (program == BIG_VISION)
        by_tensorflow(planes.at, planes.size, (float)factor);
    else if (program == PILLOW)
        by_pillow(planes.at, planes.size, (float)factor);
    else
        by_torchvision(planes.at, planes.size, (float)factor, (float)(1.0 - factor));
}

enum { TOGETHER = 4096 }; /* pixels whose sum fits in 32 bits */

INLINE uint32_t sum_of_greys_body(const unsigned char *at, size_t size, size_t count, int by_pillow) {
    uint32_t sum = 0;
    if (by_pillow)
        for (size_t i = 0; i < count; i++)
            sum += (uint32_t)pillows_grey(at[i], at[size + i], at[2 * size + i]);
    else
        for (size_t i = 0; i < count; i++)
            sum += (uint32_t)torchvisions_grey(at[i], at[size + i], at[2 * size + i]);
    return sum;
}
FOR_EACH_CPU(uint32_t, sum_of_greys,
             (const unsigned char *at, size_t size, size_t count, int by_pillow),
             (at, size, count, by_pillow))

void change_contrast(struct planes planes, enum program program, double factor) {
    unsigned char table[LEVELS];
    uint64_t sum = 0;
    for (size_t i = 0; i < planes.size; i += TOGETHER)
        sum += sum_of_greys(planes.at + i, planes.size, planes.size - i < TOGETHER ? planes.size - i : TOGETHER,
                            program == PILLOW);
    const float even = (float)(int)((double)sum / (double)planes.size + 0.5);
    const float mean = (float)sum / (float)planes.size; /* torch's own, while the sum is below 2^24 */
    for (int level = 0; level < LEVELS; level++)
        table[level] = program == PILLOW ? blended(even, (float)level, (float)factor)
                                         : mixed((float)level, mean, (float)factor, (float)(1.0 - factor));
    look_up(planes.at, PLANES * planes.size, table);
}

/* The mean of a pixel, counted five times, and its neighbours, cut off. Where the thirteenths make a whole level, how
 * TensorFlow adds up decides: nine products, each fused with its addition. */
INLINE void sharpen_as_tensorflow_body(const unsigned char *restrict above, size_t width, float factor,
                                       unsigned char *restrict to) {
    const unsigned char *const row = above + width, *const below = row + width;
    const float once = 1.0f / 13, five = 5.0f / 13;
    for (size_t x = 1; x + 1 < width; x++) {
        float mean = once * above[x - 1];
        mean = fmaf(once, above[x], mean);
        mean = fmaf(once, above[x + 1], mean);
        mean = fmaf(once, row[x - 1], mean);
        mean = fmaf(five, row[x], mean);
        mean = fmaf(once, row[x + 1], mean);
        mean = fmaf(once, below[x - 1], mean);
        mean = fmaf(once, below[x], mean);
        mean = fmaf(once, below[x + 1], mean);
        const int whole = (int)mean;
        to[x] = blended((float)(whole > 255 ? 255 : whole), row[x], factor);
    }
}
FOR_EACH_CPU(void, sharpen_as_tensorflow,
             (const unsigned char *restrict above, size_t width, float factor, unsigned char *restrict to),
             (above, width, factor, to))

/* The same mean rounded: thirteenths are never a half, so that it is the same whoever adds up. */
INLINE int rounded_mean(const unsigned char *above, size_t width, size_t x) {
    const unsigned char *const row = above + width, *const below = row + width;
    const unsigned sum = above[x - 1] + above[x] + above[x + 1] + row[x - 1] + 5u * row[x] + row[x + 1] +
                         below[x - 1] + below[x] + below[x + 1];
    return (int)((sum + 6) * 5042 >> 16); /* a thirteenth, exactly up to 3,321 */
}

INLINE void sharpen_as_pillow_body(const unsigned char *restrict above, size_t width, float factor,
                                   unsigned char *restrict to) {
    for (size_t x = 1; x + 1 < width; x++)
        to[x] = blended((float)rounded_mean(above, width, x), above[width + x], factor);
}
FOR_EACH_CPU(void, sharpen_as_pillow,
             (const unsigned char *restrict above, size_t width, float factor, unsigned char *restrict to),
             (above, width, factor, to))

INLINE void sharpen_as_torchvision_body(const unsigned char *restrict above, size_t width, float rest,
                                        unsigned char *restrict to) {
    for (size_t x = 1; x + 1 < width; x++) {
        const float sharp = above[width + x];
        to[x] = as_level(fmaf((float)rounded_mean(above, width, x) - sharp, rest, sharp));
    }
}
FOR_EACH_CPU(void, sharpen_as_torchvision,
             (const unsigned char *restrict above, size_t width, float rest, unsigned char *restrict to),
             (above, width, rest, to))

void sharpen(struct planes planes, const unsigned char *from, enum program program, double factor) {
    for (size_t c = 0; c < PLANES; c++)
        for (size_t y = 1; y + 1 < planes.height; y++) {
            const size_t above = c * planes.size + (y - 1) * planes.width;
            unsigned char *const to = planes.at + above + planes.width;
            if (program == BIG_VISION)
                sharpen_as_tensorflow(from + above, planes.width, (float)factor, to);
            else if (program == PILLOW)
                sharpen_as_pillow(from + above, planes.width, (float)factor, to);
            else
                sharpen_as_torchvision(from + above, planes.width, (float)(1.0 - factor), to);
        }
}
