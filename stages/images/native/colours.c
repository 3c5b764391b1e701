/* Colour and contrast as big_vision (by TensorFlow), Pillow and torchvision have them: in single precision,
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
