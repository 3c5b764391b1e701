/* A JPEG written anew with the same coefficients, hence the same pixels, and restart markers in every row of MCUs. */

#include <string.h>

#include "decoder.h"
#include "jpeg.h"

enum { SEGMENT_PX = 64, APPLICATIONS = 16 }; /* a segment's width at least; finer ones cost bytes and save little */

struct rewriting {
    struct jpeg_decompress_struct from;
    struct jpeg_compress_struct to;
    struct jpeg_error_mgr error;
    struct jpeg_progress_mgr progress;
    struct jpeg_destination_mgr into;
    jmp_buf refused;
};

static void refuse(j_common_ptr info) { longjmp(((struct rewriting *)info->client_data)->refused, 1); }

static void remark(j_common_ptr info, int level) {
    if (level < 0)
        refuse(info);
}

static void say_nothing(j_common_ptr info) { (void)info; }

/* What is written goes to the room there is and nowhere else, so that a refusal leaves nothing to free. */
static void begin(j_compress_ptr info) { (void)info; }

static boolean full(j_compress_ptr info) {
    refuse((j_common_ptr)info);
    return FALSE;
}

static int has(const struct jpeg_marker_struct *marker, int kind, const char *name, unsigned length) {
    return marker->marker == kind && marker->data_length >= length && memcmp(marker->data, name, length) == 0;
}

/* All that stood beside the pixels (Exif, profile, comments) but what libjpeg writes itself. */
static void copy_markers(struct rewriting *r) {
    for (const struct jpeg_marker_struct *m = r->from.marker_list; m; m = m->next) {
        const int jfif = r->to.write_JFIF_header && has(m, JPEG_APP0, "JFIF", 5);
        const int adobe = r->to.write_Adobe_marker && has(m, JPEG_APP0 + 14, "Adobe", 5);
        if (!jfif && !adobe)
            jpeg_write_marker(&r->to, m->marker, m->data, m->data_length);
    }
}

/* The fewest MCUs of which a row has a whole number, and that are wide enough. */
static unsigned interval_for(const struct frame *frame) {
    const unsigned mcus = (unsigned)((frame->width + frame->mcu_w - 1) / frame->mcu_w);
    unsigned interval = 1;
    while (interval < mcus && (mcus % interval || (int)interval * frame->mcu_w < SEGMENT_PX))
        interval++;
    return interval;
}

/* 0 with `*written` bytes in `out`; 1 when the file is to stay as it is: damaged, or larger than `room` afterwards. */
int vitpipe_tile(const unsigned char *data, size_t size, unsigned char *out, size_t room, size_t *written) {
    struct frame frame;
    struct rewriting r;
    if (read_frame(data, size, &frame) || !frame.ends)
        return 1;
    r.from.err = r.to.err = jpeg_std_error(&r.error);
    r.error.error_exit = refuse;
    r.error.emit_message = remark;
    r.error.output_message = say_nothing;
    r.progress.progress_monitor = bound_scans;
    r.into = (struct jpeg_destination_mgr){out, room, begin, full, begin};
    r.from.client_data = r.to.client_data = &r;
    r.from.mem = NULL;
    r.to.mem = NULL;
    if (setjmp(r.refused)) {
        jpeg_destroy((j_common_ptr)&r.from);
        jpeg_destroy((j_common_ptr)&r.to);
        return 1;
    }
    jpeg_create_decompress(&r.from);
    jpeg_create_compress(&r.to);
    r.from.progress = &r.progress;
    r.to.dest = &r.into;
    jpeg_mem_src(&r.from, data, size);
    jpeg_save_markers(&r.from, JPEG_COM, 0xFFFF);
    for (int n = 0; n < APPLICATIONS; n++)
        jpeg_save_markers(&r.from, JPEG_APP0 + n, 0xFFFF);
    jpeg_read_header(&r.from, TRUE);
    jvirt_barray_ptr *const coefficients = jpeg_read_coefficients(&r.from);
    jpeg_copy_critical_parameters(&r.from, &r.to);
    r.to.optimize_coding = TRUE;
    r.to.restart_interval = interval_for(&frame);
    jpeg_write_coefficients(&r.to, coefficients);
    copy_markers(&r);
    jpeg_finish_compress(&r.to);
    jpeg_finish_decompress(&r.from);
    jpeg_destroy_compress(&r.to);
    jpeg_destroy_decompress(&r.from);
    *written = room - r.into.free_in_buffer;
    return 0;
}
