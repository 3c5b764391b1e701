/* What the chunks of a PNG say. Sizes in pixels unless said. */

#include <stddef.h>
#include <stdint.h>

enum { FRAME = 12 }; /* bytes of a chunk beside its body: length and kind before it, CRC behind */
enum { GREY = 0, COLOUR = 2, PALETTE = 3, GREY_ALPHA = 4, COLOUR_ALPHA = 6 };

struct png {
    uint32_t width, height;
    int depth, colours, channels;
    size_t pixel_bits, row_bytes;
    const unsigned char *palette; /* three bytes each */
    int palette_size;
    size_t first, end, data_bytes; /* where the chunks of pixels stand, and the bytes of their bodies */
    int pieces;                    /* how many those are */
};

uint32_t big_endian(const unsigned char *at);

/* All chunks to the end. 1 where one is missing, damaged, out of order, or may change the pixels in ways
 * that are not known here: interlacing, Exif, animation. */
int read_chunks(struct png *png, const unsigned char *data, size_t size);
