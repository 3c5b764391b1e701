/* The state of our Huffman decoder for one image. */

#include "tables.h"

struct bits {
    uint64_t window; /* the next bits, the first on top */
    int filled;      /* how many there are */
    int lacking;     /* how many of them are zeros that stand in no file */
    const unsigned char *at, *end;
};

struct huffman {
    const struct table_sets *sets;
    struct tables *tables; /* this image's, NULL for none */
    struct bits bits;
    int last_dc[MAX_COMPS_IN_SCAN];
    unsigned to_restart, next_restart; /* MCUs, and the marker's number */
    unsigned column, from, to;         /* of the MCU; coefficients are wanted of the columns from .. to - 1 */
    unsigned rows_left;
};

/* Take over from libjpeg after jpeg_start_decompress. 0, or 1 when it must go on by itself. */
int take_over(j_decompress_ptr info, struct huffman *huffman);
