/* Bilinear resizing of 8-bit pixels to torch's own (ATen/native/cpu/UpSampleKernel.cpp): rows first and then columns,
 * each result rounded to a byte. Whole numbers are added up, so that the order does not matter, and no instruction set
 * has other pixels. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "resize.h"
#include "taps.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define BY_AVX2
#include <immintrin.h>
#endif

enum { PLANES = 3, AT_ONCE = 16, ROOM = 32 }; /* bytes of a row; bytes that may be read beyond the last of a pixel */

static inline unsigned char as_byte(int sum, int precision) {
    sum >>= precision;
    return (unsigned char)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* One row of interleaved colours to a row of each plane, planes being `size` bytes apart. */
static void shrink_row(const unsigned char *row, const struct taps *x, size_t size, unsigned char *to) {
    for (int i = 0; i < x->count; i++)
        for (int c = 0; c < PLANES; c++) {
            const unsigned char *from = row + PLANES * x->first[i] + c;
            const int16_t *const weights = x->weights + i * x->most;
            int sum = 1 << (x->precision - 1);
            for (int j = 0; j < x->num[i]; j++, from += PLANES)
                sum += weights[j] * *from;
            to[(size_t)c * size + (size_t)i] = as_byte(sum, x->precision);
        }
}

/* Rows of a plane to one row of `count` bytes. */
static void shrink_rows(const unsigned char *rows, size_t stride, const int16_t *weights, int num, int precision,
                        int count, unsigned char *to) {
    for (int i = 0; i < count; i++) {
        int sum = 1 << (precision - 1);
        for (int j = 0; j < num; j++)
            sum += weights[j] * rows[(size_t)j * stride + (size_t)i];
        to[i] = as_byte(sum, precision);
    }
}

#ifdef BY_AVX2

#define AVX2 __attribute__((target("avx2")))

AVX2 static inline __m256i weighed(const unsigned char *one, const unsigned char *other, const struct taps *x, int i) {
    const __m256i pair_01 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i pair_23 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    const size_t at = (size_t)PLANES * (size_t)x->first[i];
    const int16_t *weights = x->weights + i * x->most;
    __m256i sum = _mm256_set1_epi32(1 << (x->precision - 1));
    for (int j = 0; j < x->num[i]; j += TOGETHER, weights += TOGETHER) {
        const size_t from = at + (size_t)PLANES * (size_t)j;
        const __m256i pixels = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(one + from))),
            _mm_loadu_si128((const __m128i *)(other + from)), 1);
        int32_t pairs[2];
        memcpy(pairs, weights, sizeof pairs);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, pair_01), _mm256_set1_epi32(pairs[0])));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, pair_23), _mm256_set1_epi32(pairs[1])));
    }
    return _mm256_sra_epi32(sum, _mm_cvtsi32_si128(x->precision));
}

AVX2 static inline void store_four(__m128i pixels, size_t size, unsigned char *to) {
    const __m128i planes = _mm_shuffle_epi8(
        pixels, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, -1, -1, -1, -1));
    const int r = _mm_cvtsi128_si32(planes), g = _mm_extract_epi32(planes, 1), b = _mm_extract_epi32(planes, 2);
    memcpy(to, &r, 4);
    memcpy(to + size, &g, 4);
    memcpy(to + 2 * size, &b, 4);
}

/* Two rows as `shrink_row`; up to 16 bytes beyond the last pixel are read. */
AVX2 static void shrink_two_rows(const unsigned char *one, const unsigned char *other, const struct taps *x,
                                 size_t size, unsigned char *to, unsigned char *other_to) {
    int i = 0;
    for (; i + 4 <= x->count; i += 4) {
        const __m256i first = _mm256_packs_epi32(weighed(one, other, x, i), weighed(one, other, x, i + 1));
        const __m256i second = _mm256_packs_epi32(weighed(one, other, x, i + 2), weighed(one, other, x, i + 3));
        const __m256i four = _mm256_packus_epi16(first, second);
        store_four(_mm256_castsi256_si128(four), size, to + i);
        store_four(_mm256_extracti128_si256(four, 1), size, other_to + i);
    }
    if (i < x->count) {
        const struct taps rest = {x->count - i, x->most, x->precision, x->first + i, x->num + i, x->weights + i * x->most};
        shrink_row(one, &rest, size, to + i);
        shrink_row(other, &rest, size, other_to + i);
    }
}

/* As `shrink_rows`; up to 15 bytes beyond each row, and a row of weight zero, are read, and beyond the result written. */
AVX2 static void shrink_rows_avx2(const unsigned char *rows, size_t stride, const int16_t *weights, int num,
                                  int precision, int count, unsigned char *to) {
    const __m128i shift = _mm_cvtsi32_si128(precision);
    for (int i = 0; i < count; i += AT_ONCE, rows += AT_ONCE) {
        __m256i low = _mm256_set1_epi32(1 << (precision - 1)), high = low;
        for (int j = 0; j < num; j += 2) {
            const unsigned char *const at = rows + (size_t)j * stride;
            const __m128i one = _mm_loadu_si128((const __m128i *)at);
            const __m128i other = j + 1 < num ? _mm_loadu_si128((const __m128i *)(at + stride)) : one;
            int32_t pair;
            memcpy(&pair, weights + j, sizeof pair);
            const __m256i both = _mm256_set1_epi32(pair);
            low = _mm256_add_epi32(
                low, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(one, other)), both));
            high = _mm256_add_epi32(
                high, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(one, other)), both));
        }
        const __m256i words = _mm256_permute4x64_epi64(
            _mm256_packs_epi32(_mm256_sra_epi32(low, shift), _mm256_sra_epi32(high, shift)), 0xD8);
        _mm_storeu_si128((__m128i *)(to + i), _mm_packus_epi16(_mm256_castsi256_si128(words),
                                                               _mm256_extracti128_si256(words, 1)));
    }
}
#endif

/* All rows to rows of planes, `width` bytes apart; planes are `size` bytes apart. */
static void shrink_across(const unsigned char *pixels, size_t stride, int rows, int columns, const struct taps *x,
                          size_t width, size_t size, unsigned char *to) {
    int y = 0;
#ifdef BY_AVX2
    if (__builtin_cpu_supports("avx2"))
        for (; (rows - y - 3) * (ptrdiff_t)stride + PLANES * columns >= ROOM; y += 2)
            shrink_two_rows(pixels + (size_t)y * stride, pixels + (size_t)(y + 1) * stride, x, size,
                            to + (size_t)y * width, to + (size_t)(y + 1) * width);
#endif
    for (; y < rows; y++)
        shrink_row(pixels + (size_t)y * stride, x, size, to + (size_t)y * width);
}

static void shrink_down(const unsigned char *rows, size_t stride, const int16_t *weights, int num, int precision,
                        int count, unsigned char *to) {
#ifdef BY_AVX2
    if (__builtin_cpu_supports("avx2")) {
        shrink_rows_avx2(rows, stride, weights, num, precision, count, to);
        return;
    }
#endif
    shrink_rows(rows, stride, weights, num, precision, count, to);
}

static int within(int place, int most) { return place < 0 ? 0 : place > most ? most : place; }

int resize_to_planes(const unsigned char *pixels, size_t stride, int rows, int columns, const struct framing *f,
                     unsigned char *out) {
    const int left = within(f->left, f->width), right = within(f->left + f->side, f->width);
    const int top = within(f->top, f->height), bottom = within(f->top + f->side, f->height);
    const size_t side = (size_t)f->side, before = (size_t)(left - f->left), kept = (size_t)(right - left);
    if (kept < side || bottom - top < f->side)
        memset(out, 0, PLANES * side * side);
    if (!kept || bottom == top)
        return 0;
    struct taps x = {0}, y = {0};
    unsigned char *planes = NULL, *line = NULL;
    int lacking = find_taps(&x, columns, f->width, left, right - left, f->antialias) ||
                  find_taps(&y, rows, f->height, top, bottom - top, f->antialias);
    if (!lacking) {
        const int first = y.first[0], last = y.first[y.count - 1] + y.num[y.count - 1];
        const size_t width = (kept + AT_ONCE - 1) / AT_ONCE * AT_ONCE, size = width * (size_t)(last - first);
        planes = malloc(PLANES * size + ROOM);
        line = malloc(width);
        lacking = !planes || !line;
        if (!lacking)
            shrink_across(pixels + (size_t)first * stride, stride, last - first, columns, &x, width, size, planes);
        for (int c = 0; !lacking && c < PLANES; c++)
            for (int i = 0; i < y.count; i++) {
                const unsigned char *from = planes + (size_t)c * size + (size_t)(y.first[i] - first) * width;
                unsigned char *const row = out + ((size_t)c * side + (size_t)(top - f->top + i)) * side;
                shrink_down(from, width, y.weights + i * y.most, y.num[i], y.precision, (int)kept, line);
                if (f->flip)
                    vitpipe_mirror(line, 1, kept, row + side - before - kept);
                else
                    memcpy(row + before, line, kept);
            }
    }
    free_taps(&x);
    free_taps(&y);
    free(planes);
    free(line);
    return lacking;
}
