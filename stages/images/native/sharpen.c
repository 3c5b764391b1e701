/* Sharpness: a level towards or from its neighbours' mean, as big_vision (by TensorFlow), Pillow and torchvision have it.
 * The mean counts the pixel five times; what lies at the border stays. */

#include <math.h>

#include "steps.h"

enum { THIRTEENTH = 5042 }; /* of 65,536 */

/* The mean cut off. Where the thirteenths make a whole level, how TensorFlow adds up decides: nine products, each fused
 * with its addition. */
INLINE int tensorflows_mean(const unsigned char *above, size_t width, size_t x) {
    const unsigned char *const row = above + width, *const below = row + width;
    const float once = 1.0f / 13, five = 5.0f / 13;
    float mean = once * above[x - 1];
    mean = fmaf(once, above[x], mean);
    mean = fmaf(once, above[x + 1], mean);
    mean = fmaf(once, row[x - 1], mean);
    mean = fmaf(five, row[x], mean);
    mean = fmaf(once, row[x + 1], mean);
    mean = fmaf(once, below[x - 1], mean);
    mean = fmaf(once, below[x], mean);
    mean = fmaf(once, below[x + 1], mean);
    return mean > 255 ? 255 : (int)mean;
}

/* The mean rounded: thirteenths are never a half, so that it is the same whoever adds up. */
INLINE int rounded_mean(const unsigned char *above, size_t width, size_t x) {
    const unsigned char *const row = above + width, *const below = row + width;
    const unsigned sum = above[x - 1] + above[x] + above[x + 1] + row[x - 1] + 5u * row[x] + row[x + 1] +
                         below[x - 1] + below[x] + below[x + 1];
    return (int)((sum + 6) * THIRTEENTH >> 16); /* a thirteenth, exactly up to 3,321 */
}

INLINE unsigned char sharpened(const unsigned char *above, size_t width, size_t x, enum program program, float factor) {
    const float sharp = above[width + x];
    if (program == BIG_VISION)
        return blended((float)tensorflows_mean(above, width, x), sharp, factor);
    const float mean = (float)rounded_mean(above, width, x);
    return program == PILLOW ? blended(mean, sharp, factor) : as_level(fmaf(mean - sharp, factor, sharp));
}

#ifdef HAS_INTRINSICS
#include <immintrin.h>

enum { AT_ONCE = 16 };

INLINE WIDE __m256i words(const unsigned char *levels) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)levels));
}

INLINE WIDE __m256 floats(const unsigned char *levels) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)levels)));
}

INLINE WIDE __m256i rounded_means(const unsigned char *at, size_t width) {
    const unsigned char *const row = at + width, *const below = row + width;
    __m256i sum = _mm256_add_epi16(_mm256_add_epi16(words(at - 1), words(at)), words(at + 1));
    sum = _mm256_add_epi16(sum, _mm256_add_epi16(_mm256_add_epi16(words(below - 1), words(below)), words(below + 1)));
    const __m256i own = words(row);
    sum = _mm256_add_epi16(sum, _mm256_add_epi16(_mm256_add_epi16(words(row - 1), own), words(row + 1)));
    sum = _mm256_add_epi16(sum, _mm256_slli_epi16(own, 2));
    return _mm256_mulhi_epu16(_mm256_add_epi16(sum, _mm256_set1_epi16(6)), _mm256_set1_epi16(THIRTEENTH));
}

INLINE WIDE __m256i eight_of_tensorflows(const unsigned char *at, size_t width) {
    const unsigned char *const row = at + width, *const below = row + width;
    const __m256 once = _mm256_set1_ps(1.0f / 13), five = _mm256_set1_ps(5.0f / 13);
    __m256 mean = _mm256_mul_ps(once, floats(at - 1));
    mean = _mm256_fmadd_ps(once, floats(at), mean);
    mean = _mm256_fmadd_ps(once, floats(at + 1), mean);
    mean = _mm256_fmadd_ps(once, floats(row - 1), mean);
    mean = _mm256_fmadd_ps(five, floats(row), mean);
    mean = _mm256_fmadd_ps(once, floats(row + 1), mean);
    mean = _mm256_fmadd_ps(once, floats(below - 1), mean);
    mean = _mm256_fmadd_ps(once, floats(below), mean);
    mean = _mm256_fmadd_ps(once, floats(below + 1), mean);
    return _mm256_cvttps_epi32(mean);
}

INLINE WIDE __m256i in_order(__m256i low, __m256i high) { /* of sixteen numbers, as words */
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8);
}

INLINE WIDE __m256 half(__m256i numbers, int upper) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(
        upper ? _mm256_extracti128_si256(numbers, 1) : _mm256_castsi256_si128(numbers)));
}

/* Sixteen levels, of which `above` has the first's neighbour above it. */
INLINE WIDE void sharpen_block(const unsigned char *above, size_t width, enum program program, float factor,
                               unsigned char *to) {
    const __m256i own = words(above + width), most = _mm256_set1_epi16(255);
    const __m256i mean = program == BIG_VISION
                             ? _mm256_min_epi16(in_order(eight_of_tensorflows(above, width),
                                                         eight_of_tensorflows(above + AT_ONCE / 2, width)),
                                                most)
                             : rounded_means(above, width);
    const __m256 by = _mm256_set1_ps(factor);
    __m256i value[2];
    for (int n = 0; n < 2; n++)
        value[n] = _mm256_cvttps_epi32(
            program == TORCHVISION
                ? _mm256_fmadd_ps(half(_mm256_sub_epi16(mean, own), n), by, half(own, n))
                : _mm256_add_ps(half(mean, n), _mm256_mul_ps(by, half(_mm256_sub_epi16(own, mean), n))));
    const __m256i found = in_order(value[0], value[1]); /* packing cuts off */
    _mm_storeu_si128((__m128i *)to,
                     _mm_packus_epi16(_mm256_castsi256_si128(found), _mm256_extracti128_si256(found, 1)));
}

/* Blocks of a row within its border, the last of which may take pixels again. Returns where the rest begins. */
INLINE WIDE size_t sharpen_row_wide(const unsigned char *above, size_t width, enum program program, float factor,
                                    unsigned char *to) {
    if (width < AT_ONCE + 2)
        return 1;
    for (size_t x = 1; x + 1 < width; x += AT_ONCE) {
        const size_t at = x + AT_ONCE + 1 > width ? width - AT_ONCE - 1 : x;
        sharpen_block(above + at, width, program, factor, to + at);
    }
    return width;
}
WIDE static size_t wide_as_tensorflow(const unsigned char *above, size_t width, float factor, unsigned char *to) {
    return sharpen_row_wide(above, width, BIG_VISION, factor, to);
}
WIDE static size_t wide_as_pillow(const unsigned char *above, size_t width, float factor, unsigned char *to) {
    return sharpen_row_wide(above, width, PILLOW, factor, to);
}
WIDE static size_t wide_as_torchvision(const unsigned char *above, size_t width, float factor, unsigned char *to) {
    return sharpen_row_wide(above, width, TORCHVISION, factor, to);
}
static size_t sharpen_wide(const unsigned char *above, size_t width, enum program program, float factor, unsigned char *to) {
    return program == BIG_VISION ? wide_as_tensorflow(above, width, factor, to)
           : program == PILLOW   ? wide_as_pillow(above, width, factor, to)
                                 : wide_as_torchvision(above, width, factor, to);
}
#else
static size_t sharpen_wide(const unsigned char *above, size_t width, enum program program, float factor, unsigned char *to) {
    (void)above, (void)width, (void)program, (void)factor, (void)to;
    return 1;
}
#endif

void sharpen(struct planes planes, const unsigned char *from, enum program program, double factor) {
    const float by = program == TORCHVISION ? (float)(1.0 - factor) : (float)factor;
    for (size_t c = 0; c < PLANES; c++)
        for (size_t y = 1; y + 1 < planes.height; y++) {
            const unsigned char *const above = from + c * planes.size + (y - 1) * planes.width;
            unsigned char *const to = planes.at + c * planes.size + y * planes.width;
            for (size_t x = has_wide() ? sharpen_wide(above, planes.width, program, by, to) : 1; x + 1 < planes.width; x++)
                to[x] = sharpened(above, planes.width, x, program, by);
        }
}
