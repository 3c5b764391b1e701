/* Weights of a bilinear resizing as torch has them (ATen/native/cpu/UpSampleKernel.cpp): in double precision, then
 * rounded to 16 bits. */

#include <math.h>
#include <stddef.h>
#include <stdlib.h>

#include "taps.h"

static double triangle(double x) {
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

/* Weights of one result with a low-pass; returns where they begin. */
static int smooth_weights(int result, int old, double scale, int most, double *weights, int *num) {
    const double support = scale >= 1 ? scale : 1, center = scale * (result + 0.5), inverse = scale >= 1 ? 1 / scale : 1;
    const int64_t low = (int64_t)(center - support + 0.5), first = low > 0 ? low : 0;
    int64_t size = (int64_t)(center + support + 0.5);
    size = (size < old ? size : old) - first;
    size = size < 0 ? 0 : size > most ? most : size;
    double total = 0;
    for (int64_t j = 0; j < size; j++)
        total += weights[j] = triangle(((double)(j + first) - center + 0.5) * inverse);
    for (int64_t j = 0; total != 0 && j < size; j++)
        weights[j] /= total;
    *num = (int)size;
    return (int)first;
}

/* Weights of one result between its two neighbours. */
static int plain_weights(int result, int old, double scale, double *weights, int *num) {
    double at = scale * (result + 0.5) - 0.5;
    at = at < 0 ? 0 : at;
    int first = (int)floorf((float)at);
    first = first < old - 1 ? first : old - 1;
    double part = at - first;
    part = part < 0 ? 0 : part > 1 ? 1 : part;
    *num = first + 2 < old ? 2 : old - first;
    for (int j = 0, place = 0; j < 2; j++, place++) {
        if (first + j <= 0)
            place = 0;
        else if (first + j >= old - 1)
            place = *num - 1;
        weights[place] += triangle(j - part);
    }
    return first;
}

int find_taps(struct taps *taps, int old, int resized, int begin, int count, int antialias) {
    const double scale = (double)old / resized, support = scale >= 1 && antialias ? scale : 1;
    const int most = antialias ? 2 * (int)ceil(support) + 1 : 2;
    double *const exact = calloc((size_t)most * (size_t)resized, sizeof *exact), *at = exact, greatest = 0;
    taps->count = count;
    taps->most = (most + TOGETHER - 1) / TOGETHER * TOGETHER;
    taps->first = malloc(2 * (size_t)resized * sizeof *taps->first);
    taps->weights = calloc((size_t)taps->most * (size_t)count + TOGETHER, sizeof *taps->weights);
    if (!exact || !taps->first || !taps->weights) {
        free(exact);
        return 1;
    }
    taps->num = taps->first + resized;
    for (int i = 0; i < resized; i++, at += most) { /* all of them, for the greatest decides the precision */
        taps->first[i] = antialias ? smooth_weights(i, old, scale, most, at, &taps->num[i])
                                   : plain_weights(i, old, scale, at, &taps->num[i]);
        for (int j = 0; j < taps->num[i]; j++)
            greatest = at[j] > greatest ? at[j] : greatest;
    }
    for (taps->precision = 0; taps->precision < 22; taps->precision++)
        if ((int)(0.5 + greatest * (1 << (taps->precision + 1))) >= 1 << 15)
            break;
    for (int i = 0; i < count; i++) {
        taps->first[i] = taps->first[begin + i];
        taps->num[i] = taps->num[begin + i];
        for (int j = 0; j < taps->num[i]; j++)
            taps->weights[i * taps->most + j] =
                (int16_t)(0.5 + exact[(begin + i) * (ptrdiff_t)most + j] * (1 << taps->precision));
    }
    free(exact);
    return 0;
}

void free_taps(struct taps *taps) {
    free(taps->first);
    free(taps->weights);
}
