/* Pixels of a part of a JPEG, bit-identical to decoding it whole with the same libjpeg and cutting.
 *
 * Only for files without a remark: for any error, warning or odd kind the caller asks Pillow instead.
 * Safe for threads; a thread keeps its last Huffman tables, and nothing else, between calls. */

#include <stdlib.h>
#include <string.h>

#include "decoder.h"
#include "jpeg.h"

/* Read the rows of `part` into `out`; unless `whole`, decode nothing outside it where that is known to be exact. */
static void read_rows(struct decoder *d, const struct part *part, int whole, unsigned char *out) {
    j_decompress_ptr info = &d->info;
    const int frame_w = (int)info->output_width, frame_h = (int)info->output_height;
    const int right = part->left + part->width, bottom = part->top + part->height;
    JDIMENSION left = 0, width = info->output_width;
    if (!whole) {
        /* upsampled chroma looks at its neighbours: one MCU more on each side, cut off again below */
        const int mcu_w = info->max_h_samp_factor * DCTSIZE, mcu_h = info->max_v_samp_factor * DCTSIZE;
        const int above = part->top > mcu_h ? (part->top - mcu_h) / mcu_h * mcu_h : 0;
        left = (JDIMENSION)(part->left > mcu_w ? part->left - mcu_w : 0);
        width = (JDIMENSION)(frame_w - right > mcu_w ? right + mcu_w : frame_w) - left;
        if ((int)width < frame_w)
            jpeg_crop_scanline(info, &left, &width);
        const JDIMENSION column_w = info->comps_in_scan == 1 ? DCTSIZE : (JDIMENSION)mcu_w;
        d->huffman->from = left / column_w;
        d->huffman->to = (left + width + column_w - 1) / column_w;
        if (above && jpeg_skip_scanlines(info, (JDIMENSION)above) != (JDIMENSION)above)
            refuse_jpeg((j_common_ptr)info);
    }
    d->line = malloc(3 * (size_t)width);
    if (!d->line)
        refuse_jpeg((j_common_ptr)info);
    const size_t cut = 3 * (size_t)(part->left - (int)left), row_bytes = 3 * (size_t)part->width;
    const int direct = cut == 0 && (int)width == part->width;
    for (int y = (int)info->output_scanline; y < (whole ? frame_h : bottom); y++) {
        const int wanted = y >= part->top && y < bottom;
        unsigned char *const to = wanted ? out + row_bytes * (size_t)(y - part->top) : NULL;
        JSAMPROW row = wanted && direct ? to : d->line;
        if (jpeg_read_scanlines(info, &row, 1) != 1)
            refuse_jpeg((j_common_ptr)info);
        if (wanted && !direct)
            memcpy(to, d->line + cut, row_bytes);
    }
    if (whole)
        jpeg_finish_decompress(info); /* to the end of the file: what is damaged there is found too */
}

static int decode(const unsigned char *data, size_t size, int frame_w, int frame_h, const struct part *part, int whole,
                  unsigned char *out) {
    static _Thread_local struct tables tables; /* those of the image before */
    const struct table_sets sets = {&tables, 1};
    struct huffman huffman = {.sets = &sets};
    struct decoder d;
    if (open_jpeg(&d, &huffman, data, size, frame_w, frame_h))
        return 1;
    volatile int refused = 1;
    if (!setjmp(d.refused)) {
        read_rows(&d, part, whole || jpeg_has_multiple_scans(&d.info), out);
        refused = 0;
    }
    close_jpeg(&d);
    return refused;
}

int vitpipe_decode_part(const unsigned char *data, size_t size, int width, int height, int upright, int top, int left,
                        int rows, int columns, unsigned char *out) {
    struct frame frame;
    struct part part = {top, left, rows, columns};
    if (top < 0 || left < 0 || rows < 1 || columns < 1 || rows > height - top || columns > width - left)
        return 1;
    if (read_frame(data, size, &frame) || frame.width != width || frame.height != height)
        return 1;
    if (frame.exif && !upright)
        return 2;
    /* a file that was cut short has no end of image: it is read whole, and so found out */
    const int whole = (rows == height && columns == width) || !frame.ends;
    if (!whole && frame.interval) {
        struct splice splice;
        if (cut_segments(data, size, &frame, &part, &splice) == 0) {
            const int refused =
                decode(splice.data, splice.size, splice.width, splice.height, &splice.part, 0, out);
            free(splice.data);
            return refused;
        }
    }
    return decode(data, size, width, height, &part, whole, out);
}
