/* Pixels from where a matrix leads along rows alone, by Pillow's bilinear and bicubic filters (libImaging/Geometry.c), in
 * its double precision. Where the pixels of a row have neighbours one after another, they are read as they lie. Columns
 * are rows of the planes transposed. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "steps.h"

enum { BLOCK = 8, BEFORE = 2, AFTER = 2 };

/* Where the pixels of a row come from, and a row with its border repeated before and after it. */
struct line {
    double *part;               /* how far each is from the pixel left of it */
    int32_t *left;              /* that pixel, or OUTSIDE */
    unsigned char *padded;
    unsigned char *near[TAPS];  /* neighbours, where they are not one after another */
    size_t begin, end;          /* of the pixels that come from inside */
    int even;                   /* whether their neighbours are one after another */
};
enum { OUTSIDE = -2 };

/* As `find_row` of moves.c, in the same order of additions. */
INLINE void find_line_body(struct line *line, double slope, double shift, size_t length) {
    double *const restrict part = line->part;
    int32_t *const restrict left = line->left;
    const double most = (double)length;
    for (size_t x = 0; x < length; x++) {
        const double at = (double)(int32_t)x + 0.5 + slope + shift;
        const double whole = floor(at - 0.5);
        const int inside = (at >= 0) & (at < most);
        part[x] = inside ? at - 0.5 - whole : 0;
        left[x] = (int32_t)(inside ? whole : OUTSIDE);
    }
    size_t begin = 0, end = length;
    while (begin < length && left[begin] == OUTSIDE)
        begin++;
    while (end > begin && left[end - 1] == OUTSIDE)
        end--;
    int32_t other = 0;
    for (size_t x = begin; x < end; x++)
        other |= (left[x] - (int32_t)x) ^ (left[begin] - (int32_t)begin);
    line->begin = begin, line->end = end, line->even = !other;
}
FOR_EACH_CPU(void, find_line, (struct line *line, double slope, double shift, size_t length), (line, slope, shift, length))

#ifdef HAS_INTRINSICS
#include <immintrin.h>

typedef const unsigned char *const *taps;

INLINE WIDE __m256i eight(const unsigned char *levels) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)levels));
}

INLINE WIDE __m256d half(__m256i numbers, int upper) {
    return _mm256_cvtepi32_pd(upper ? _mm256_extracti128_si256(numbers, 1) : _mm256_castsi256_si128(numbers));
}

/* Cut off, which is what packing does. */
INLINE WIDE void store_eight(unsigned char *to, __m256d low, __m256d high) {
    const __m128i words = _mm_packs_epi32(_mm256_cvttpd_epi32(low), _mm256_cvttpd_epi32(high));
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
}

WIDE static void linear_block(unsigned char *to, taps of, const double *part, size_t x) {
    const __m256i a = eight(of[0] + x), more = _mm256_sub_epi32(eight(of[1] + x), a);
    __m256d value[2];
    for (int n = 0; n < 2; n++)
        value[n] = _mm256_add_pd(half(a, n), _mm256_mul_pd(half(more, n), _mm256_loadu_pd(part + x + 4 * n)));
    store_eight(to + x, value[0], value[1]);
}

/* What `cubic` of moves.c multiplies with is whole. */
WIDE static void cubic_block(unsigned char *to, taps of, const double *part, size_t x) {
    const __m256i v1 = eight(of[0] + x), v2 = eight(of[1] + x), v3 = eight(of[2] + x), v4 = eight(of[3] + x);
    const __m256i p2 = _mm256_sub_epi32(v3, v1), difference = _mm256_sub_epi32(v1, v2);
    const __m256i p4 = _mm256_sub_epi32(_mm256_sub_epi32(v4, v3), difference);
    const __m256i p3 = _mm256_sub_epi32(difference, p4);
    __m256d value[2];
    for (int n = 0; n < 2; n++) {
        const __m256d at = _mm256_loadu_pd(part + x + 4 * n);
        __m256d sum = _mm256_add_pd(half(p3, n), _mm256_mul_pd(at, half(p4, n)));
        sum = _mm256_add_pd(half(p2, n), _mm256_mul_pd(at, sum));
        value[n] = _mm256_add_pd(half(v2, n), _mm256_mul_pd(at, sum));
    }
    store_eight(to + x, value[0], value[1]);
}

/* Blocks, the last of which may take pixels again. Returns how many pixels are done. */
WIDE static size_t filter_wide(unsigned char *to, taps of, const double *part, size_t count, int by_cubic) {
    if (count < BLOCK)
        return 0;
    for (size_t x = 0; x < count; x += BLOCK) {
        const size_t at = x + BLOCK > count ? count - BLOCK : x;
        by_cubic ? cubic_block(to, of, part, at) : linear_block(to, of, part, at);
    }
    return count;
}
#else
static size_t filter_wide(unsigned char *to, const unsigned char *const of[TAPS], const double *part, size_t count,
                          int by_cubic) {
    (void)to, (void)of, (void)part, (void)count, (void)by_cubic;
    return 0;
}
#endif

static void filter(unsigned char *to, const unsigned char *const of[TAPS], const double *part, size_t count,
                   int by_cubic) {
    for (size_t x = has_wide() ? filter_wide(to, of, part, count, by_cubic) : 0; x < count; x++)
        to[x] = by_cubic ? cut_off(cubic(of[0][x], of[1][x], of[2][x], of[3][x], part[x]))
                         : (unsigned char)(int32_t)linear(of[0][x], of[1][x], part[x]);
}

static void shift_row(const struct line *line, unsigned char *row, size_t length, int by_cubic, int fill) {
    const unsigned char *of[TAPS];
    memset(line->padded, row[0], BEFORE);
    memcpy(line->padded + BEFORE, row, length);
    memset(line->padded + BEFORE + length, row[length - 1], AFTER);
    const size_t begin = line->begin, count = line->end - begin;
    for (int k = 0; k < TAPS && count; k++) {
        const unsigned char *const first = line->padded + BEFORE - by_cubic + (by_cubic || k < 2 ? k : 0);
        of[k] = line->even ? first + line->left[begin] : line->near[k];
        for (size_t x = 0; x < count && !line->even; x++)
            line->near[k][x] = first[line->left[begin + x]];
    }
    if (count)
        filter(row + begin, of, line->part + begin, count, by_cubic);
    memset(row, fill, begin);
    memset(row + line->end, fill, length - line->end);
}

/* `slope` is of a row's middle. */
static int shift_rows(struct planes planes, double slope, double shift, int by_cubic, int fill) {
    const size_t length = planes.width, bytes = BEFORE + length + AFTER;
    char *const room = malloc(length * (sizeof(double) + sizeof(int32_t) + TAPS) + bytes);
    if (!room)
        return 1;
    struct line line = {.part = (double *)room, .left = (int32_t *)(room + length * sizeof(double))};
    line.near[0] = (unsigned char *)(line.left + length);
    for (int k = 1; k < TAPS; k++)
        line.near[k] = line.near[k - 1] + length;
    line.padded = line.near[TAPS - 1] + length;
    for (size_t y = 0; y < planes.height; y++) {
        if (!y || slope != 0)
            find_line(&line, slope * ((double)y + 0.5), shift, length);
        for (size_t c = 0; c < PLANES; c++)
            shift_row(&line, planes.at + c * planes.size + y * length, length, by_cubic, fill);
    }
    free(room);
    return 0;
}

/* Swap bytes of a square: what `apart` rows and bytes lie apart, where `mask` has it. */
static void swap(uint64_t rows[BLOCK], int apart, uint64_t mask) {
    for (int n = 0; n < BLOCK; n++)
        if (!(n & apart)) {
            const uint64_t both = (rows[n] >> 8 * apart ^ rows[n + apart]) & mask;
            rows[n + apart] ^= both;
            rows[n] ^= both << 8 * apart;
        }
}

static void transpose_block(const unsigned char *from, size_t width, unsigned char *to, size_t height) {
    uint64_t rows[BLOCK];
    for (int n = 0; n < BLOCK; n++)
        memcpy(&rows[n], from + n * width, BLOCK);
    swap(rows, 4, 0xFFFFFFFF);
    swap(rows, 2, 0x0000FFFF0000FFFF);
    swap(rows, 1, 0x00FF00FF00FF00FF);
    for (int n = 0; n < BLOCK; n++)
        memcpy(to + n * height, &rows[n], BLOCK);
}

static void transpose(const unsigned char *from, size_t height, size_t width, unsigned char *to) {
    const size_t down = height - height % BLOCK, across = width - width % BLOCK;
    for (size_t y = 0; y < down; y += BLOCK)
        for (size_t x = 0; x < across; x += BLOCK)
            transpose_block(from + y * width + x, width, to + x * height + y, height);
    for (size_t y = 0; y < height; y++)
        for (size_t x = y < down ? across : 0; x < width; x++)
            to[x * height + y] = from[y * width + x];
}

int is_shift(const double *m) {
    return (m[0] == 1 && m[3] == 0 && m[4] == 1 && m[5] == 0) || (m[0] == 1 && m[1] == 0 && m[2] == 0 && m[4] == 1);
}

int shift(struct planes planes, unsigned char *copy, const double *m, int by_cubic, int fill) {
    if (m[3] == 0 && m[5] == 0)
        return shift_rows(planes, m[1], m[2], by_cubic, fill);
    for (size_t c = 0; c < PLANES; c++)
        transpose(planes.at + c * planes.size, planes.height, planes.width, copy + c * planes.size);
    const struct planes turned = {copy, planes.width, planes.height, planes.size};
    if (shift_rows(turned, m[3], m[5], by_cubic, fill))
        return 1;
    for (size_t c = 0; c < PLANES; c++)
        transpose(copy + c * planes.size, planes.width, planes.height, planes.at + c * planes.size);
    return 0;
}
