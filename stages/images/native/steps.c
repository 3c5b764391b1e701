/* RandAugment: steps one after another, and those of them that are a table of levels, or of places. */

#include <stdlib.h>
#include <string.h>

#include "steps.h"

#ifdef HAS_INTRINSICS
#include <immintrin.h>

enum { AT_ONCE = 32, NIBBLES = 16 };

/* By shuffles, each of sixteen levels of the table; a shuffle gives 0 where the upper bit is set. So of a table's lower
 * half, levels that are not below 16 n find what its part n differs by from the one before, and the upper half likewise.
 * Returns how many are done. */
WIDE static size_t look_up_wide(unsigned char *levels, size_t count, const unsigned char *table) {
    __m256i parts[NIBBLES];
    for (int n = 0; n < NIBBLES; n++)
        parts[n] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(table + NIBBLES * n)));
    for (int n = NIBBLES - 1; n > 0; n--)
        if (n != NIBBLES / 2)
            parts[n] = _mm256_xor_si256(parts[n], parts[n - 1]);
    const __m256i part = _mm256_set1_epi8(NIBBLES), half = _mm256_set1_epi8((char)0x80);
    size_t i = 0;
    for (; i + 2 * AT_ONCE <= count; i += 2 * AT_ONCE) {
        __m256i *const to = (__m256i *)(levels + i);
        __m256i a = _mm256_loadu_si256(to), b = _mm256_loadu_si256(to + 1);
        __m256i upper_a = _mm256_xor_si256(a, half), upper_b = _mm256_xor_si256(b, half);
        __m256i found_a = _mm256_setzero_si256(), found_b = found_a;
        for (int n = 0; n < NIBBLES / 2; n++) {
            const __m256i low = parts[n], high = parts[n + NIBBLES / 2];
            found_a = _mm256_xor_si256(found_a, _mm256_shuffle_epi8(low, a));
            found_b = _mm256_xor_si256(found_b, _mm256_shuffle_epi8(low, b));
            found_a = _mm256_xor_si256(found_a, _mm256_shuffle_epi8(high, upper_a));
            found_b = _mm256_xor_si256(found_b, _mm256_shuffle_epi8(high, upper_b));
            a = _mm256_subs_epi8(a, part), b = _mm256_subs_epi8(b, part);
            upper_a = _mm256_subs_epi8(upper_a, part), upper_b = _mm256_subs_epi8(upper_b, part);
        }
        _mm256_storeu_si256(to, found_a);
        _mm256_storeu_si256(to + 1, found_b);
    }
    return i;
}
#else
static size_t look_up_wide(unsigned char *levels, size_t count, const unsigned char *table) {
    (void)levels, (void)count, (void)table;
    return 0;
}
#endif

void look_up(unsigned char *levels, size_t count, const unsigned char *table) {
    for (size_t i = has_wide() ? look_up_wide(levels, count, table) : 0; i < count; i++)
        levels[i] = table[levels[i]];
}

/* Counts in four parts, for equal levels that follow each other would wait for one another. */
static void count_levels(const unsigned char *plane, size_t size, uint32_t *counts) {
    uint32_t parts[4][LEVELS] = {0};
    size_t i = 0;
    for (; i + 4 <= size; i += 4)
        for (size_t part = 0; part < 4; part++)
            parts[part][plane[i + part]]++;
    for (; i < size; i++)
        parts[0][plane[i]]++;
    for (size_t level = 0; level < LEVELS; level++)
        counts[level] = parts[0][level] + parts[1][level] + parts[2][level] + parts[3][level];
}

INLINE void find_ends_body(const unsigned char *plane, size_t size, int *lowest, int *highest) {
    unsigned char low = 255, high = 0;
    for (size_t i = 0; i < size; i++) {
        low = plane[i] < low ? plane[i] : low;
        high = plane[i] > high ? plane[i] : high;
    }
    *lowest = low;
    *highest = high;
}
FOR_EACH_CPU(void, find_ends, (const unsigned char *plane, size_t size, int *lowest, int *highest), (plane, size, lowest, highest))

static void stretching(int low, int high, enum program program, unsigned char *table) {
    const float scale = 255.0f / (float)(high - low), shift = -(float)low * scale; /* TensorFlow's */
    const double factor = 255.0 / (high - low), offset = -low * factor;            /* Pillow's */
    const float part = (float)(high - low) * (float)(1.0 / 255);                    /* torchvision's */
    for (int level = 0; level < LEVELS; level++) {
        if (program == BIG_VISION)
            table[level] = as_level((float)level * scale + shift);
        else if (program == TORCHVISION)
            table[level] = as_level((float)(level - low) / part);
        else {
            const double value = level * factor + offset;
            table[level] = (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
        }
    }
}

static void stretch(struct planes planes, enum program program) {
    unsigned char table[LEVELS];
    for (size_t c = 0; c < PLANES; c++) {
        unsigned char *const plane = planes.at + c * planes.size;
        int low, high;
        find_ends(plane, planes.size, &low, &high);
        if (low >= high)
            continue;
        stretching(low, high, program, table);
        look_up(plane, planes.size, table);
    }
}

/* All levels about equally often; a plane of few pixels, or of one level, stays. */
static void equalize(struct planes planes) {
    for (size_t c = 0; c < PLANES; c++) {
        unsigned char *const plane = planes.at + c * planes.size, table[LEVELS];
        uint32_t counts[LEVELS];
        count_levels(plane, planes.size, counts);
        int last = LEVELS - 1;
        while (last && !counts[last])
            last--;
        const uint64_t step = (planes.size - counts[last]) / 255;
        if (!step)
            continue;
        uint64_t sum = step / 2;
        for (int level = 0; level < LEVELS; sum += counts[level++]) {
            const uint64_t value = sum / step;
            table[level] = (unsigned char)(value > 255 ? 255 : value);
        }
        look_up(plane, planes.size, table);
    }
}

/* Towards or from one grey. */
static void blend_even(struct planes planes, double grey, double factor) {
    unsigned char table[LEVELS];
    for (int level = 0; level < LEVELS; level++)
        table[level] = blended((float)grey, (float)level, (float)factor);
    look_up(planes.at, PLANES * planes.size, table);
}

static void fill_box(struct planes planes, const double *box, int fill) {
    const size_t top = (size_t)box[0], left = (size_t)box[1], bottom = (size_t)box[2], right = (size_t)box[3];
    for (size_t c = 0; c < PLANES && left < right; c++)
        for (size_t y = top; y < bottom; y++)
            memset(planes.at + c * planes.size + y * planes.width + left, fill, right - left);
}

static int take(struct planes planes, unsigned char *copy, const struct step *step) {
    const double *const numbers = step->numbers;
    if (step->what == SHARPNESS)
        memcpy(copy, planes.at, PLANES * planes.size);
    switch ((enum what)step->what) {
    case TABLE: look_up(planes.at, PLANES * planes.size, step->table); break;
    case AUTOCONTRAST: stretch(planes, (enum program)step->program); break;
    case EQUALIZE: equalize(planes); break;
    case EVEN: blend_even(planes, numbers[0], numbers[1]); break;
    case COLOUR: change_colour(planes, (enum program)step->program, numbers[0]); break;
    case CONTRAST: change_contrast(planes, (enum program)step->program, numbers[0]); break;
    case SHARPNESS: sharpen(planes, copy, (enum program)step->program, numbers[0]); break;
    case GATHER: return gather(planes, copy, step->table, step->fill);
    case BILINEAR:
    case BICUBIC:
        return is_shift(numbers) ? shift(planes, copy, numbers, step->what == BICUBIC, step->fill)
                                 : move(planes, numbers, step->what == BICUBIC, step->fill);
    case BOX: fill_box(planes, numbers, step->fill); break;
    }
    return 0;
}

int vitpipe_steps(unsigned char *planes, size_t height, size_t width, const struct step *steps, size_t count) {
    unsigned char *const copy = malloc(PLANES * height * width);
    if (!copy)
        return 1;
    int lacking = 0;
    for (size_t i = 0; i < count && !lacking; i++)
        lacking = take((struct planes){planes, height, width, height * width}, copy, &steps[i]);
    free(copy);
    return lacking;
}
