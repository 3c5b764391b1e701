/* One JPEG while libjpeg decodes it to RGB. */

#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>

#include "huffman.h"

enum { MAX_SCANS = 500 }; /* as `scans.py` has it */

struct decoder {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr error;
    struct jpeg_progress_mgr progress;
    jmp_buf refused; /* set by whoever calls libjpeg: any error or warning jumps there */
    struct huffman *huffman;
    unsigned char *line; /* where rows that are not wanted whole are decoded, or NULL */
};

/* 0 when the first row comes next; 1, with nothing left to close, when the file is damaged, of another size or kind. */
int open_jpeg(struct decoder *d, struct huffman *huffman, const unsigned char *data, size_t size, int width,
              int height);
void close_jpeg(struct decoder *d);
void refuse_jpeg(j_common_ptr info);
/* For libjpeg to call between rows of a scan: an error once there are too many scans. */
void bound_scans(j_common_ptr info);
