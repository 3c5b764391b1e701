/* Pixels resized and laid out as planes. Sizes in pixels. */

#include <stddef.h>

/* What becomes of the pixels of an image: resized to `height` x `width`, of which the square of `side` pixels that
 * begins at (top, left) is kept; what lies outside of it is black. */
struct framing {
    int height, width, top, left, side, antialias, flip;
};

/* Of rows of red, green and blue that are `stride` bytes apart; the last row may be read up to its end only.
 * 0 with three planes of side x side in `out`; 1 without memory. */
int resize_to_planes(const unsigned char *pixels, size_t stride, int rows, int columns, const struct framing *framing,
                     unsigned char *out);

/* Rows of bytes copied back to front. */
void vitpipe_mirror(const unsigned char *from, size_t rows, size_t width, unsigned char *to);
