/* Pixels of a part of a PNG, as the whole image cut: no row below it is inflated, no column beside it converted.
 *
 * Only for files that nothing can be said against: all chunks are there, with the right CRCs. For anything odd or damaged
 * the caller asks Pillow instead. */

#include <stdlib.h>
#include <string.h>

#include "checksums.h"
#include "inflate.h"
#include "jpeg.h"
#include "png.h"
#include "unfilter.h"

enum { PIECE = 65536 };                       /* bytes inflated at a time: they stay in the processor's cache */
enum { BEFORE = 16, BEHIND = 16 };            /* room around a row, for pixels taken by eight bytes */

/* A part under way. */
struct rows {
    struct png png;
    size_t top, left, height, width; /* of the part */
    size_t needed;                   /* bytes of a row up to the part's right */
    unsigned char *out;
    unsigned char *above, *row;      /* the row before, and this one, unfiltered */
    unsigned char colours[256][3];   /* of each grey or entry of the palette, where a sample is a byte at most */
    int is_listed, colour_count;
};

static void list_colours(struct rows *r) {
    const struct png *const p = &r->png;
    r->is_listed = p->depth <= 8 && (p->colours == GREY || p->colours == PALETTE);
    if (!r->is_listed)
        return;
    r->colour_count = p->colours == PALETTE ? p->palette_size : 1 << p->depth;
    if (p->colours == PALETTE)
        memcpy(r->colours, p->palette, 3 * (size_t)p->palette_size);
    else
        for (int n = 0; n < r->colour_count; n++)
            memset(r->colours[n], n * 255 / (r->colour_count - 1), 3);
}

/* 1 where the palette has no such colour. */
static int write_listed(const struct rows *r, unsigned char *to) {
    const int depth = r->png.depth, mask = (1 << depth) - 1;
    int highest = 0;
    for (size_t x = 0; x < r->width; x++, to += 3) {
        const size_t bit = (r->left + x) * (size_t)depth;
        const int colour = r->row[bit / 8] >> (8 - depth - (int)(bit % 8)) & mask;
        highest = colour > highest ? colour : highest;
        memcpy(to, r->colours[colour], 3);
    }
    return highest >= r->colour_count;
}

/* The upper byte of each sample; alpha is dropped. */
static void write_samples(const struct rows *r, unsigned char *to) {
    const size_t step = r->png.pixel_bits / 8, sample = (size_t)r->png.depth / 8;
    const size_t green = r->png.channels > 2 ? sample : 0, blue = 2 * green;
    const unsigned char *from = r->row + r->left * step;
    if (step == 3) {
        memcpy(to, from, 3 * r->width);
        return;
    }
    for (size_t x = 0; x < r->width; x++, from += step, to += 3) {
        to[0] = from[0];
        to[1] = from[green];
        to[2] = from[blue];
    }
}

/* Take the row of the image that stands at `raw`, its filter before it. 1 when it is damaged. */
static int take_row(struct rows *r, const unsigned char *raw, size_t y) {
    const size_t pixel_bytes = (r->png.pixel_bits + 7) / 8;
    unsigned char *const last = r->above;
    r->above = r->row, r->row = last;
    if (unfilter(*raw, raw + 1, r->above, r->row, r->needed, pixel_bytes))
        return 1;
    if (y < r->top)
        return 0;
    unsigned char *const to = r->out + 3 * r->width * (y - r->top);
    if (r->is_listed)
        return write_listed(r, to);
    write_samples(r, to);
    return 0;
}

/* All rows down to the part's last, inflated into `window`. Into `adler` goes the checksum of a whole image's rows. */
static int take_rows(struct rows *r, struct inflate *z, unsigned char *window, size_t window_bytes, uint32_t *adler) {
    const size_t line = r->png.row_bytes + 1, bottom = r->top + r->height;
    size_t at = 0, have = 0, y = 0;
    while (y < bottom) {
        const size_t lacking = line * (bottom - y) - (have - at), room = window_bytes - have;
        const size_t before = have;
        have = inflate(z, window, have, have + (lacking < room ? lacking : room));
        if (adler)
            *adler = adler32_of(*adler, window + before, have - before);
        if (z->is_damaged || have == before)
            return 1;
        for (; y < bottom && have - at >= line; y++, at += line)
            if (take_row(r, window + at, y))
                return 1;
        const size_t kept = have - at > HISTORY ? have - at : HISTORY < have ? HISTORY : have;
        memmove(window, window + have - kept, kept);
        at -= have - kept;
        have = kept;
    }
    return adler && (have != at || inflate(z, window, have, have + 1) != have);
}

/* The chunks of pixels as one stream, which may be read beyond its end: a single one has its CRC and the last chunk
 * behind it. Free `joined` unless it is NULL. */
static const unsigned char *join(const struct png *p, const unsigned char *data, unsigned char **joined) {
    *joined = NULL;
    if (p->pieces == 1)
        return data + p->first + 8;
    unsigned char *to = *joined = malloc(p->data_bytes + BEHIND_INPUT);
    if (!to)
        return NULL;
    for (size_t at = p->first, length; at < p->end; at += FRAME + length, to += length) {
        length = big_endian(data + at);
        memcpy(to, data + at + 8, length);
    }
    memset(to, 0, BEHIND_INPUT);
    return *joined;
}

static int decode(struct rows *r, const unsigned char *data, struct inflate *z, unsigned char *room, size_t window_bytes) {
    const struct png *const p = &r->png;
    const size_t row_room = BEFORE + p->row_bytes + BEHIND;
    const int whole = r->height == p->height && r->width == p->width;
    unsigned char *joined;
    const unsigned char *const stream = join(p, data, &joined);
    uint32_t adler = 1;
    memset(room, 0, 2 * row_room);
    r->above = room + BEFORE;
    r->row = r->above + row_room;
    const int refused = !stream || begin_inflate(z, stream, p->data_bytes) ||
                        take_rows(r, z, room + 2 * row_room, window_bytes, whole ? &adler : NULL) ||
                        (whole && !is_inflated(z, adler));
    free(joined);
    return refused;
}

int vitpipe_png_part(const unsigned char *data, size_t size, int width, int height, int top, int left, int rows,
                     int columns, unsigned char *out) {
    struct rows r = {.out = out};
    if (top < 0 || left < 0 || rows < 1 || columns < 1 || rows > height - top || columns > width - left)
        return 1;
    if (read_chunks(&r.png, data, size) || r.png.width != (uint32_t)width || r.png.height != (uint32_t)height)
        return 1;
    r.top = (size_t)top, r.left = (size_t)left, r.height = (size_t)rows, r.width = (size_t)columns;
    r.needed = ((r.left + r.width) * r.png.pixel_bits + 7) / 8;
    list_colours(&r);
    const size_t line = r.png.row_bytes + 1, window_bytes = HISTORY + (2 * line > PIECE ? 2 * line : PIECE);
    struct inflate *const z = malloc(sizeof *z);
    unsigned char *const room = malloc(2 * (BEFORE + r.png.row_bytes + BEHIND) + window_bytes + BEHIND_OUTPUT);
    const int refused = !z || !room || decode(&r, data, z, room, window_bytes);
    free(room);
    free(z);
    return refused;
}
