/* The state of our Huffman decoder, for one image at a time; tables stay for the next that has the same. */

#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

enum { LOOK = 10 };

struct table {
    uint32_t looks[1 << LOOK]; /* what the next bits tell, 0 for a longer code */
    uint64_t pairs[1 << LOOK]; /* the same of two symbols, for AC alone */
    int end[17], offset[17];   /* of each length: the code after the last, and what leads from a code to its symbol */
    unsigned char symbols[256];
    unsigned char of_bits[17], of_values[256]; /* the file's own, of which it was made */
    int made;
};

struct bits {
    uint64_t window; /* the next bits, the first on top */
    int filled;      /* how many there are */
    int lacking;     /* how many of them are zeros that stand in no file */
    const unsigned char *at, *end;
};

struct huffman {
    struct table dc[NUM_HUFF_TBLS], ac[NUM_HUFF_TBLS];
    struct bits bits;
    int last_dc[MAX_COMPS_IN_SCAN];
    unsigned to_restart, next_restart; /* MCUs, and the marker's number */
    unsigned column, from, to;         /* of the MCU; coefficients are wanted of the columns from .. to - 1 */
    unsigned rows_left;
};

/* Take over from libjpeg after jpeg_start_decompress. 0, or 1 when it must go on by itself. `huffman` is all zeros at
 * first, and then as it was left. */
int take_over(j_decompress_ptr info, struct huffman *huffman);
