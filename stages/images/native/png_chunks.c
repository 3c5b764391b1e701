/* The chain of a PNG's chunks (PNG specification, section 5). */

#include <string.h>

#include "checksums.h"
#include "png.h"

enum { SIGNATURE = 8 };

uint32_t big_endian(const unsigned char *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static int is_kind(const unsigned char *chunk, const char *kind) { return memcmp(chunk + 4, kind, 4) == 0; }

static int is_sound(const unsigned char *chunk, size_t length) {
    return crc32_of(chunk + 4, length + 4) == big_endian(chunk + 8 + length);
}

static int read_start(struct png *p, const unsigned char *body) {
    static const int CHANNELS[] = {1, 0, 3, 1, 2, 0, 4};
    p->width = big_endian(body), p->height = big_endian(body + 4);
    p->depth = body[8], p->colours = body[9];
    if (p->colours > COLOUR_ALPHA || !CHANNELS[p->colours] || body[10] || body[11] || body[12])
        return 1; /* rows in one order alone */
    const int depth = p->depth, small = depth == 1 || depth == 2 || depth == 4;
    if (!(depth == 8 || (depth == 16 && p->colours != PALETTE) ||
          (small && (p->colours == GREY || p->colours == PALETTE))))
        return 1;
    p->channels = CHANNELS[p->colours];
    p->pixel_bits = (size_t)(p->channels * depth);
    p->row_bytes = (p->width * p->pixel_bits + 7) / 8;
    return 0;
}

/* Chunks that change no pixel, of a length that no reader complains about. */
static int is_harmless(const struct png *p, const unsigned char *chunk, size_t length) {
    static const struct {
        char kind[5];
        size_t length;
    } FIXED[] = {{"gAMA", 4}, {"cHRM", 32}, {"sRGB", 1}, {"pHYs", 9}};
    static const char TELLING[][5] = {"eXIf", "acTL", "fcTL", "fdAT"}; /* which way is up, and other frames */
    for (size_t n = 0; n < sizeof FIXED / sizeof *FIXED; n++)
        if (is_kind(chunk, FIXED[n].kind))
            return length == FIXED[n].length;
    for (size_t n = 0; n < sizeof TELLING / sizeof *TELLING; n++)
        if (is_kind(chunk, TELLING[n]))
            return 0;
    if (is_kind(chunk, "tRNS")) /* alpha is dropped */
        return !p->pieces && (p->colours == GREY     ? length == 2
                              : p->colours == COLOUR ? length == 6
                                                     : length && length <= (size_t)p->palette_size);
    for (int n = 4; n < 8; n++)
        if ((chunk[n] | 32) < 'a' || (chunk[n] | 32) > 'z')
            return 0;
    return chunk[4] & 32;
}

int read_chunks(struct png *p, const unsigned char *data, size_t size) {
    memset(p, 0, sizeof *p);
    if (size < SIGNATURE || memcmp(data, "\x89PNG\r\n\x1a\n", SIGNATURE) != 0)
        return 1;
    for (size_t at = SIGNATURE, length; size - at >= FRAME; at += FRAME + length) {
        const unsigned char *const chunk = data + at;
        length = big_endian(chunk);
        if (length > size - at - FRAME)
            return 1;
        if (!is_sound(chunk, length))
            return 1;
        if (is_kind(chunk, "IDAT")) {
            if (!p->row_bytes || (p->end && p->end != at))
                return 1;
            p->first = p->pieces++ ? p->first : at;
            p->end = at + FRAME + length;
            p->data_bytes += length;
            continue;
        }
        if (is_kind(chunk, "IEND"))
            return length || !p->pieces || (p->colours == PALETTE && !p->palette);
        if (is_kind(chunk, "IHDR") != (at == SIGNATURE))
            return 1;
        if (at == SIGNATURE) {
            if (length != 13 || read_start(p, chunk + 8))
                return 1;
        } else if (is_kind(chunk, "PLTE")) {
            if (p->palette || p->pieces || !length || length % 3 || length > 768)
                return 1;
            p->palette = chunk + 8;
            p->palette_size = (int)length / 3;
        } else if (!is_harmless(p, chunk, length)) {
            return 1;
        }
    }
    return 1;
}
