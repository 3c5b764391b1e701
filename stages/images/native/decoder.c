/* Opening a JPEG for libjpeg, with our Huffman decoder where it can stand; anything to remark on is a refusal. */

#include <stdlib.h>

#include "decoder.h"

void refuse_jpeg(j_common_ptr info) { longjmp(((struct decoder *)info)->refused, 1); }

void bound_scans(j_common_ptr info) {
    if (((j_decompress_ptr)info)->input_scan_number > MAX_SCANS)
        (*info->err->error_exit)(info);
}

static void remark(j_common_ptr info, int level) {
    if (level < 0) /* corrupt data: libjpeg would go on with grey */
        refuse_jpeg(info);
}

static void say_nothing(j_common_ptr info) { (void)info; }

static int plain(const struct jpeg_decompress_struct *info) {
    const int colour = info->num_components == 3 &&
                       (info->jpeg_color_space == JCS_YCbCr || info->jpeg_color_space == JCS_RGB);
    const int grey = info->num_components == 1 && info->jpeg_color_space == JCS_GRAYSCALE;
    return (colour || grey) && info->data_precision == 8 && !info->arith_code;
}

int open_jpeg(struct decoder *d, struct huffman *huffman, const unsigned char *data, size_t size, int width,
              int height) {
    j_decompress_ptr info = &d->info;
    d->line = NULL;
    d->huffman = huffman;
    huffman->tables = NULL;
    info->err = jpeg_std_error(&d->error);
    d->error.error_exit = refuse_jpeg;
    d->error.emit_message = remark;
    d->error.output_message = say_nothing;
    if (setjmp(d->refused)) {
        close_jpeg(d);
        return 1;
    }
    jpeg_create_decompress(info);
    d->progress.progress_monitor = bound_scans;
    info->progress = &d->progress;
    jpeg_mem_src(info, data, size);
    jpeg_read_header(info, TRUE);
    if (!plain(info) || (int)info->image_width != width || (int)info->image_height != height)
        refuse_jpeg((j_common_ptr)info);
    info->out_color_space = JCS_RGB;
    jpeg_start_decompress(info);
    if (!jpeg_has_multiple_scans(info) && !info->progressive_mode && take_over(info, huffman))
        refuse_jpeg((j_common_ptr)info);
    return 0;
}

void close_jpeg(struct decoder *d) {
    jpeg_destroy_decompress(&d->info);
    give_up_tables(d->huffman->tables);
    free(d->line);
}
