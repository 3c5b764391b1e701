/* Images of a batch: each from a file, or from pixels, to its place in the batch, with no lock of Python's held. */

#include <stdint.h>
#include <stdlib.h>

#include "jpeg.h"
#include "resize.h"
#include "steps.h"

enum { COLOURS = 3, NOTHING = 1, NO_MEMORY = 3 };

/* As `cuts.py` lays it out. */
struct image {
    const unsigned char *data; /* a JPEG or PNG of `size` bytes, or the part's rows, `stride` bytes apart; or NULL for neither */
    uint64_t size, stride;
    int32_t height, width, upright; /* as stored */
    struct part part;
    struct framing framing;
    unsigned char *out;
    const struct step *steps; /* taken on the result */
    uint64_t num_steps;
};

static int decode(const struct image *image, unsigned char *pixels) {
    const struct part *const part = &image->part;
    if (image->size && *image->data == PNG_BEGINS)
        return vitpipe_png_part(image->data, image->size, image->width, image->height, part->top, part->left,
                                part->height, part->width, pixels);
    return vitpipe_decode_part(image->data, image->size, image->width, image->height, image->upright, part->top,
                               part->left, part->height, part->width, pixels);
}

/* 0, or why not: as `vitpipe_decode_part`, or NO_MEMORY. */
static int cut(const struct image *image) {
    const struct part *const part = &image->part;
    if (!image->data)
        return NOTHING;
    if (image->stride)
        return resize_to_planes(image->data, image->stride, part->height, part->width, &image->framing, image->out)
                   ? NO_MEMORY
                   : 0;
    const size_t stride = COLOURS * (size_t)part->width;
    unsigned char *const pixels = malloc(stride * (size_t)part->height);
    if (!pixels)
        return NO_MEMORY;
    int refused = decode(image, pixels);
    if (!refused && resize_to_planes(pixels, stride, part->height, part->width, &image->framing, image->out))
        refused = NO_MEMORY;
    free(pixels);
    return refused;
}

static int make(const struct image *image) {
    const int refused = cut(image);
    const size_t side = (size_t)image->framing.side;
    if (refused || !image->num_steps)
        return refused;
    return vitpipe_steps(image->out, side, side, image->steps, image->num_steps) ? NO_MEMORY : 0;
}

void vitpipe_images(const struct image *images, size_t count, int32_t *refused) {
    for (size_t i = 0; i < count; i++)
        refused[i] = make(&images[i]);
}
