/* Pixels from where a matrix leads, by Pillow's bilinear and bicubic filters (libImaging/Geometry.c), in its double
 * precision. A row at a time: where each pixel comes from, its neighbours side by side, and then the arithmetic, of one
 * dimension where the other does not change. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "steps.h"

/* Where the pixels of a row come from, and their neighbours by line and column. */
struct row {
    size_t begin, end;          /* of the pixels that come from inside */
    int across_any, down_any;   /* whether any is between columns, or rows */
    int32_t *left, *top;        /* the pixel up and left of each */
    double *across, *down;      /* how far each is from that one */
    double *between[TAPS];      /* lines between columns */
    int32_t *lines[TAPS], *columns[TAPS]; /* of the neighbours: where a line begins, and a column, within */
    uint32_t *near[TAPS][TAPS];           /* the neighbours: red, green and blue in one number */
};

INLINE void find_row_body(struct row *row, const double *m, size_t height, size_t width, double y) {
    const double high = (double)height, wide = (double)width;
    int across_any = 0, down_any = 0;
    size_t begin = width, end = 0;
    for (size_t x = 0; x < width; x++) {
        const double at_x = m[0] * ((double)(int32_t)x + 0.5) + m[1] * y + m[2];
        const double at_y = m[3] * ((double)(int32_t)x + 0.5) + m[4] * y + m[5];
        const int inside = (at_x >= 0) & (at_x < wide) & (at_y >= 0) & (at_y < high);
        const double left = floor(at_x - 0.5), top = floor(at_y - 0.5);
        row->across[x] = inside ? at_x - 0.5 - left : 0;
        row->down[x] = inside ? at_y - 0.5 - top : 0;
        row->left[x] = (int32_t)(inside ? left : -2);
        row->top[x] = (int32_t)(inside ? top : -2);
    }
    for (size_t x = 0; x < width; x++)
        if (row->left[x] > -2) { /* what is inside begins at -1 */
            begin = begin < x ? begin : x;
            end = x + 1;
            across_any |= row->across[x] != 0;
            down_any |= row->down[x] != 0;
        }
    begin = begin < end ? begin : end;
    row->begin = begin, row->end = end, row->across_any = across_any, row->down_any = down_any;
}
FOR_EACH_CPU(void, find_row, (struct row *row, const double *m, size_t height, size_t width, double y),
             (row, m, height, width, y))

INLINE int32_t within(int32_t place, size_t count) {
    return place < 0 ? 0 : place < (int32_t)count ? place : (int32_t)count - 1;
}

/* Lines and columns of all neighbours; beyond the border is the border. */
INLINE void find_near_body(const struct row *row, size_t height, size_t width, int taps, int before) {
    for (int n = 0; n < taps; n++)
        for (size_t x = row->begin; x < row->end; x++) {
            row->lines[n][x] = within(row->top[x] + n - before, height) * (int32_t)width;
            row->columns[n][x] = within(row->left[x] + n - before, width);
        }
}
FOR_EACH_CPU(void, find_near, (const struct row *row, size_t height, size_t width, int taps, int before),
             (row, height, width, taps, before))

static void collect(const struct row *row, const uint32_t *pixels, int n, int k) {
    const int32_t *const lines = row->lines[n], *const columns = row->columns[k];
    uint32_t *const near = row->near[n][k];
    for (size_t x = row->begin; x < row->end; x++)
        near[x] = pixels[lines[x] + columns[x]];
}

#define OF(near) ((double)(int32_t)((near)[x] >> shift & 255))

INLINE void one_linear_body(unsigned char *restrict to, const uint32_t *const of[TAPS], const double *part,
                            const struct row *row, int shift) {
    const uint32_t *const a = of[0], *const b = of[1];
    for (size_t x = row->begin, end = row->end; x < end; x++)
        to[x] = (unsigned char)(int32_t)linear(OF(a), OF(b), part[x]);
}
FOR_EACH_CPU(void, one_linear,
             (unsigned char *restrict to, const uint32_t *const of[TAPS], const double *part, const struct row *row,
              int shift),
             (to, of, part, row, shift))

INLINE void two_linear_body(unsigned char *restrict to, const struct row *row, int shift) {
    const uint32_t *const a = row->near[0][0], *const b = row->near[0][1];
    const uint32_t *const c = row->near[1][0], *const d = row->near[1][1];
    const double *const across = row->across, *const down = row->down;
    for (size_t x = row->begin, end = row->end; x < end; x++)
        to[x] = (unsigned char)(int32_t)linear(linear(OF(a), OF(b), across[x]), linear(OF(c), OF(d), across[x]), down[x]);
}
FOR_EACH_CPU(void, two_linear, (unsigned char *restrict to, const struct row *row, int shift), (to, row, shift))

INLINE void one_cubic_body(unsigned char *restrict to, const uint32_t *const of[TAPS], const double *part,
                           const struct row *row, int shift) {
    const uint32_t *const a = of[0], *const b = of[1], *const c = of[2], *const d = of[3];
    for (size_t x = row->begin, end = row->end; x < end; x++)
        to[x] = cut_off(cubic(OF(a), OF(b), OF(c), OF(d), part[x]));
}
FOR_EACH_CPU(void, one_cubic,
             (unsigned char *restrict to, const uint32_t *const of[TAPS], const double *part, const struct row *row,
              int shift),
             (to, of, part, row, shift))

INLINE void cubic_line_body(double *restrict to, uint32_t *const of[TAPS], const struct row *row, int shift) {
    const uint32_t *const a = of[0], *const b = of[1], *const c = of[2], *const d = of[3];
    const double *const across = row->across;
    for (size_t x = row->begin, end = row->end; x < end; x++)
        to[x] = cubic(OF(a), OF(b), OF(c), OF(d), across[x]);
}
FOR_EACH_CPU(void, cubic_line, (double *restrict to, uint32_t *const of[TAPS], const struct row *row, int shift),
             (to, of, row, shift))

INLINE void cubic_lines_body(unsigned char *restrict to, double *const of[TAPS], const struct row *row) {
    const double *const a = of[0], *const b = of[1], *const c = of[2], *const d = of[3], *const down = row->down;
    for (size_t x = row->begin, end = row->end; x < end; x++)
        to[x] = cut_off(cubic(a[x], b[x], c[x], d[x], down[x]));
}
FOR_EACH_CPU(void, cubic_lines, (unsigned char *restrict to, double *const of[TAPS], const struct row *row),
             (to, of, row))

/* One row of one plane, the colour at `shift`. */
static void interpolate(const struct row *row, int by_cubic, int shift, unsigned char *to) {
    const uint32_t *of[TAPS];
    for (int n = 0; n < TAPS; n++)
        of[n] = row->down_any ? row->near[n][by_cubic] : row->near[by_cubic][n];
    const double *const part = row->down_any ? row->down : row->across;
    if (!row->down_any || !row->across_any)
        by_cubic ? one_cubic(to, of, part, row, shift) : one_linear(to, of, part, row, shift);
    else if (!by_cubic)
        two_linear(to, row, shift);
    else {
        for (int n = 0; n < TAPS; n++)
            cubic_line(row->between[n], row->near[n], row, shift);
        cubic_lines(to, row->between, row);
    }
}

static struct row lay_out(void *room, size_t width) {
    struct row row = {.across = room};
    row.down = row.across + width;
    for (size_t n = 0; n < TAPS; n++)
        row.between[n] = row.down + (n + 1) * width;
    row.left = (int32_t *)(row.between[TAPS - 1] + width);
    row.top = row.left + width;
    for (size_t n = 0; n < TAPS; n++) {
        row.lines[n] = row.top + (2 * n + 1) * width;
        row.columns[n] = row.lines[n] + width;
        for (size_t k = 0; k < TAPS; k++)
            row.near[n][k] = (uint32_t *)(row.top + (2 * TAPS + 1 + TAPS * n + k) * width);
    }
    return row;
}

int move(struct planes planes, const double *matrix, int by_cubic, int fill) {
    const size_t width = planes.width, doubles = 2 + TAPS, numbers = 2 + 2 * TAPS + TAPS * TAPS;
    void *const room = malloc(width * (doubles * sizeof(double) + numbers * sizeof(int32_t)));
    uint32_t *const pixels = malloc(planes.size * sizeof *pixels);
    if (!room || !pixels) {
        free(room);
        free(pixels);
        return 1;
    }
    interleave(planes.at, planes.size, pixels);
    struct row row = lay_out(room, width);
    const int taps = by_cubic ? TAPS : 2;
    for (size_t y = 0; y < planes.height; y++) {
        find_row(&row, matrix, planes.height, width, (double)y + 0.5);
        find_near(&row, planes.height, width, taps, by_cubic);
        for (int n = 0; n < taps; n++)
            for (int k = 0; k < taps; k++)
                if ((n == by_cubic || row.down_any) && (k == by_cubic || row.across_any || !row.down_any))
                    collect(&row, pixels, n, k);
        for (size_t c = 0; c < PLANES; c++) {
            unsigned char *const to = planes.at + c * planes.size + y * width;
            interpolate(&row, by_cubic, 8 * (int)c, to);
            memset(to, fill, row.begin);
            memset(to + row.end, fill, width - row.end);
        }
    }
    free(room);
    free(pixels);
    return 0;
}
