/* Restart segments: a JPEG with restart markers is cut to those that cover a part, without decoding any. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "jpeg.h"

enum { SOI = 0xD8, EOI = 0xD9, SOS = 0xDA, DRI = 0xDD, SOF0 = 0xC0, SOF1 = 0xC1, SOF2 = 0xC2, RST0 = 0xD0 };
enum { APP0 = 0xE0, APP1 = 0xE1, APP14 = 0xEE, APP15 = 0xEF, COM = 0xFE };

static int big(const unsigned char *at) { return at[0] << 8 | at[1]; }

static int divided(int what, int by) { return (what + by - 1) / by; }

/* The frame header's body of `length` bytes at `at`: sizes and sampling. */
static int read_sampling(const unsigned char *body, int length, struct frame *frame) {
    int max_h = 1, max_v = 1;
    if (length < 6)
        return 1;
    const int components = body[5];
    if (body[0] != 8 || length < 6 + 3 * components || (components != 1 && components != 3))
        return 1;
    for (int c = 0; c < components; c++) {
        const int h = body[7 + 3 * c] >> 4, v = body[7 + 3 * c] & 15;
        if (h < 1 || h > 4 || v < 1 || v > 4)
            return 1;
        max_h = h > max_h ? h : max_h;
        max_v = v > max_v ? v : max_v;
    }
    frame->height = big(body + 1);
    frame->width = big(body + 3);
    frame->reach = max_h > max_v ? max_h : max_v;
    frame->mcu_w = components == 1 ? 8 : 8 * max_h; /* a scan of one component has blocks for MCUs */
    frame->mcu_h = components == 1 ? 8 : 8 * max_v;
    return !(frame->width && frame->height);
}

int read_frame(const unsigned char *data, size_t size, struct frame *frame) {
    int marker, components = 0;
    memset(frame, 0, sizeof *frame);
    if (size < 4 || data[0] != 0xFF || data[1] != SOI)
        return 1;
    for (size_t at = 2; at + 4 <= size;) {
        if (data[at] != 0xFF)
            return 1;
        marker = data[at + 1];
        if (marker == 0xFF) {
            at++;
            continue;
        }
        const size_t length = (size_t)big(data + at + 2);
        if (length < 2 || length > size - at - 2)
            return 1;
        const unsigned char *body = data + at + 4;
        if (marker == SOF0 || marker == SOF1 || marker == SOF2) {
            if (components || read_sampling(body, (int)length - 2, frame))
                return 1;
            components = body[5];
            frame->sequential = marker != SOF2;
            frame->size_at = at + 5;
        } else if (marker == APP1) {
            frame->exif |= length >= 8 && memcmp(body, "Exif\0", 6) == 0;
        } else if (marker == DRI) {
            if (length != 4)
                return 1;
            frame->interval = big(body);
        } else if (marker == SOS) {
            frame->scan_at = at;
            frame->data_at = at + 2 + length;
            frame->sequential &= length > 2 && body[0] == components;
            frame->ends = data[size - 2] == 0xFF && data[size - 1] == EOI;
            return !components;
        } else if (marker != 0xC4 && marker != 0xDB && marker != COM && (marker < APP0 || marker > APP15)) {
            return 1; /* arithmetic, lossless and hierarchical frames among them */
        }
        at += 2 + length;
    }
    return 1;
}

/* Whether a JPEG is whole by its markers, its last bytes its end, and nothing may say that it lies otherwise than stored. */
int vitpipe_is_plain(const unsigned char *data, size_t size) {
    struct frame frame;
    return read_frame(data, size, &frame) == 0 && frame.ends && !frame.exif;
}

/* Headers without what no decoder needs: of the application's segments JFIF's and Adobe's tell the colours. */
static size_t copy_headers(const unsigned char *data, const struct frame *frame, int width, int height,
                           unsigned char *to) {
    size_t size = 2;
    memcpy(to, data, 2);
    for (size_t at = 2; at < frame->data_at;) {
        const int marker = data[at + 1];
        if (marker == 0xFF) {
            at++;
            continue;
        }
        const size_t length = 2 + (size_t)big(data + at + 2);
        const int application = marker >= APP0 && marker <= APP15 && marker != APP0 && marker != APP14;
        if (!application && marker != COM) {
            memcpy(to + size, data + at, length);
            if (at + 5 == frame->size_at) {
                to[size + 5] = (unsigned char)(height >> 8), to[size + 6] = (unsigned char)height;
                to[size + 7] = (unsigned char)(width >> 8), to[size + 8] = (unsigned char)width;
            }
            size += length;
        }
        at += length;
    }
    return size;
}

/* The next marker in the image data at or after `at`, or NULL. */
static const unsigned char *next_marker(const unsigned char *at, const unsigned char *end) {
    while (at < end && (at = memchr(at, 0xFF, (size_t)(end - at))) != NULL) {
        if (end - at < 2)
            return NULL;
        if (at[1] != 0x00)
            return at;
        at += 2;
    }
    return NULL;
}

int cut_segments(const unsigned char *data, size_t size, const struct frame *frame, const struct part *part,
                 struct splice *splice) {
    const int mcus = divided(frame->width, frame->mcu_w), mcu_rows = divided(frame->height, frame->mcu_h);
    if (!frame->sequential || !frame->interval || mcus % frame->interval)
        return 1;
    const int a_row = mcus / frame->interval, wide = frame->interval * frame->mcu_w, high = frame->mcu_h;
    const int right = part->left + part->width + frame->reach, bottom = part->top + part->height + frame->reach;
    const int first_row = (part->top > frame->reach ? part->top - frame->reach : 0) / high;
    const int end_row = bottom >= frame->height ? mcu_rows : divided(bottom, high);
    const int first = (part->left > frame->reach ? part->left - frame->reach : 0) / wide;
    const int end = right >= frame->width ? a_row : divided(right, wide);
    splice->width = (end == a_row ? frame->width : end * wide) - first * wide;
    splice->height = (end_row == mcu_rows ? frame->height : end_row * high) - first_row * high;
    splice->part = (struct part){part->top - first_row * high, part->left - first * wide, part->height, part->width};
    splice->data = malloc(size + 2);
    if (!splice->data)
        return 1;
    unsigned char *to = splice->data + copy_headers(data, frame, splice->width, splice->height, splice->data);
    const unsigned char *at = data + frame->data_at, *const over = data + size;
    const long all = (long)a_row * mcu_rows;
    long kept = 0;
    for (long number = 0; number < (long)a_row * end_row; number++) {
        const unsigned char *const marker = next_marker(at, over);
        const int wanted = number + 1 == all ? EOI : RST0 + (int)(number & 7);
        if (!marker || marker[1] != wanted) {
            free(splice->data);
            return 1;
        }
        const int column = (int)(number % a_row);
        if (number / a_row >= first_row && column >= first && column < end) {
            memcpy(to, at, (size_t)(marker - at));
            to += marker - at;
            *to++ = 0xFF;
            *to++ = (unsigned char)(RST0 + (kept++ & 7));
        }
        at = marker + 2;
    }
    to[-1] = EOI;
    splice->size = (size_t)(to - splice->data);
    return 0;
}
