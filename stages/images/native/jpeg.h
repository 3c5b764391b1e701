/* What the files of this folder share. Sizes in pixels unless said. */

#include <stddef.h>

struct part {
    int top, left, height, width;
};

/* What stands before the image data. */
struct frame {
    int width, height;
    int mcu_w, mcu_h;    /* of the first scan */
    int reach;           /* how far upsampling looks beyond a pixel, at most */
    int sequential;      /* Huffman-coded in one scan */
    int interval;        /* MCUs between restart markers, 0 for none */
    int exif;            /* whether there is one that may say how the image lies */
    int ends;            /* whether the file's last two bytes are its end */
    size_t size_at;      /* where height and width are written */
    size_t scan_at, data_at; /* the scan's header, and the first byte after it */
};

/* A valid JPEG made of some restart segments of another, and where the part lies in it. */
struct splice {
    unsigned char *data;
    size_t size;
    int width, height;
    struct part part;
};

/* 0, or 1 when the headers are damaged or of a kind that is not decoded here. */
int read_frame(const unsigned char *data, size_t size, struct frame *frame);

/* 0 with a splice whose data the caller frees, or 1 when this file cannot be cut so. */
int cut_segments(const unsigned char *data, size_t size, const struct frame *frame, const struct part *part,
                 struct splice *splice);

/* 0 with rows x columns x 3 bytes in `out`; 1 when this file is not for us; 2 when its Exif must be read first, which
 * `upright` says was done. */
int vitpipe_decode_part(const unsigned char *data, size_t size, int width, int height, int upright, int top, int left,
                        int rows, int columns, unsigned char *out);

enum { PNG_BEGINS = 0x89 }; /* the first byte of a PNG */

/* 0 with rows x columns x 3 bytes in `out`; 1 when this PNG is not for us. */
int vitpipe_png_part(const unsigned char *data, size_t size, int width, int height, int top, int left, int rows,
                     int columns, unsigned char *out);
