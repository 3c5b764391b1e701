/* Digests of whole JPEGs and of their pixels, of which no more than some rows are ever held: they are digested while they lie
 * in the processor's cache, those of as many images at a time as the CPU digests soonest.
 *
 * That of the pixels is of `head` and then rows x columns x 3 bytes. Refuses what `vitpipe_decode_part` refuses. */

#include <stdlib.h>
#include <string.h>

#include "decoder.h"
#include "jpeg.h"
#include "sha256.h"

enum { STRIDE = 256 * BLOCK }; /* bytes of each image's pixels that are digested at a time */
enum { ROWS = 32 };
enum { WHOLE_PIXELS = 16000000 }; /* of images that libjpeg holds whole, together, unless one alone has more */
enum { FOUND, REFUSED, EXIF_FIRST };

/* A file, the size that its header says, and what is found. */
struct content {
    const unsigned char *data, *head;
    uint64_t size, head_size; /* of the head less than a block */
    uint32_t width, height;
    uint32_t upright; /* whether Exif was read */
    uint32_t found;
    unsigned char pixels[32], bytes[32]; /* digests: that, and the file's own */
};

/* An image under way. */
struct slot {
    struct content *content; /* NULL for none */
    struct decoder decoder;
    struct huffman huffman;
    size_t whole;        /* pixels, where libjpeg holds all of its coefficients: six bytes each */
    unsigned char *rows; /* what is not digested yet, and room for a stride and a row */
    size_t held;         /* bytes of it */
    uint64_t digested;
    uint32_t state[8]; /* of its digest */
};

static void write_digest(const uint32_t *state, unsigned char *to) {
    for (int n = 0; n < 8; n++) {
        const uint32_t word = __builtin_bswap32(state[n]);
        memcpy(to + 4 * n, &word, sizeof word);
    }
}

static void leave(struct slot *slot, int found) {
    slot->content->found = (uint32_t)found;
    slot->content = NULL;
    close_jpeg(&slot->decoder);
    free(slot->rows);
}

/* Begin with an image; without one the slot stays empty. */
static void enter(struct slot *slot, struct content *content) {
    struct frame frame;
    content->found = REFUSED;
    if (read_frame(content->data, content->size, &frame) || content->head_size >= BLOCK)
        return;
    if (frame.exif && !content->upright) {
        content->found = EXIF_FIRST;
        return;
    }
    slot->rows = malloc(BLOCK + STRIDE + 3 * (size_t)content->width);
    if (!slot->rows)
        return;
    if (open_jpeg(&slot->decoder, &slot->huffman, content->data, content->size, (int)content->width,
                  (int)content->height)) {
        free(slot->rows);
        return;
    }
    slot->content = content;
    slot->whole = frame.sequential ? 0 : (size_t)frame.width * frame.height;
    memcpy(slot->rows, content->head, content->head_size);
    slot->held = content->head_size;
    slot->digested = 0;
    memcpy(slot->state, SHA256_START, sizeof slot->state);
}

static void read_rows(j_decompress_ptr info, unsigned char *to, JDIMENSION count) {
    const size_t row_bytes = 3 * (size_t)info->output_width;
    while (count) {
        JSAMPROW rows[ROWS];
        const JDIMENSION some = count < ROWS ? count : ROWS;
        for (JDIMENSION n = 0; n < some; n++)
            rows[n] = to + n * row_bytes;
        const JDIMENSION have = jpeg_read_scanlines(info, rows, some);
        if (!have)
            refuse_jpeg((j_common_ptr)info);
        to += have * row_bytes;
        count -= have;
    }
}

/* Decode rows behind those that are held, up to a stride; after the last the rest of the file. 1 when it is refused. */
static int decode_rows(struct slot *slot) {
    j_decompress_ptr info = &slot->decoder.info;
    const size_t row_bytes = 3 * (size_t)info->output_width;
    const size_t lacking = slot->held < STRIDE ? (STRIDE - slot->held + row_bytes - 1) / row_bytes : 0;
    const JDIMENSION left = info->output_height - info->output_scanline, count = left < lacking ? left : (JDIMENSION)lacking;
    if (setjmp(slot->decoder.refused))
        return 1;
    read_rows(info, slot->rows + slot->held, count);
    slot->held += row_bytes * count;
    if (count == left)
        jpeg_finish_decompress(info); /* to the end of the file: what is damaged there is found too */
    return 0;
}

static struct message to_digest(const struct slot *slot) {
    const j_decompress_ptr info = (j_decompress_ptr)&slot->decoder.info;
    const int is_last = info->output_scanline == info->output_height;
    const size_t some = slot->held < 2 * STRIDE ? STRIDE : slot->held / BLOCK * BLOCK;
    struct message message = {.body = slot->rows, .body_size = is_last ? slot->held : some, .before = slot->digested,
                              .goes_on = !is_last};
    memcpy(message.state, slot->state, sizeof message.state);
    return message;
}

static void digested(struct slot *slot, const struct message *message) {
    memcpy(slot->state, message->state, sizeof slot->state);
    if (!message->goes_on) {
        write_digest(slot->state, slot->content->pixels);
        leave(slot, FOUND);
        return;
    }
    slot->digested += message->body_size;
    slot->held -= message->body_size;
    memmove(slot->rows, slot->rows + message->body_size, slot->held);
}

/* Images under way, and those that are to come. */
struct work {
    struct slot slots[SIXTEEN];
    size_t slot_count;
    struct tables tables[SIXTEEN];
    struct table_sets sets;
    struct content *next, *end;
};

/* Whether libjpeg would hold too many coefficients if the next began now. */
static int must_wait(const struct work *work) {
    struct frame frame;
    size_t whole = 0;
    for (size_t n = 0; n < work->slot_count; n++)
        whole += work->slots[n].content ? work->slots[n].whole : 0;
    if (!whole || read_frame(work->next->data, work->next->size, &frame) || frame.sequential)
        return 0;
    return whole + (size_t)frame.width * frame.height > WHOLE_PIXELS;
}

/* Whether rows of this slot's image, or of the next that is not refused, wait to be digested. */
static int has_rows(struct slot *slot, struct work *work) {
    for (;;) {
        if (slot->content && !decode_rows(slot))
            return 1;
        if (slot->content)
            leave(slot, REFUSED);
        else if (work->next == work->end || must_wait(work))
            return 0;
        else
            enter(slot, work->next++);
    }
}

/* The digest of each file's bytes, refused or not. 1 where memory lacks. */
static int digest_files(struct content *contents, size_t count) {
    struct message *const messages = calloc(count, sizeof *messages);
    if (!messages)
        return 1;
    for (size_t n = 0; n < count; n++) {
        messages[n].body = contents[n].data;
        messages[n].body_size = contents[n].size;
        memcpy(messages[n].state, SHA256_START, sizeof messages[n].state);
    }
    vitpipe_sha256(messages, count);
    for (size_t n = 0; n < count; n++)
        write_digest(messages[n].state, contents[n].bytes);
    free(messages);
    return 0;
}

/* Digest the next rows of all images that are under way or begin; how many those are. */
static size_t digest_rows(struct work *work) {
    struct message messages[SIXTEEN];
    struct slot *of[SIXTEEN];
    size_t under_way = 0;
    for (size_t n = 0; n < work->slot_count; n++)
        if (has_rows(&work->slots[n], work)) {
            messages[under_way] = to_digest(&work->slots[n]);
            of[under_way++] = &work->slots[n];
        }
    vitpipe_sha256(messages, under_way);
    for (size_t n = 0; n < under_way; n++)
        digested(of[n], &messages[n]);
    return under_way;
}

/* What is found of each, and its digests. 0, or 1 where this CPU cannot or memory lacks. */
int vitpipe_contents(struct content *contents, size_t count) {
    struct work *const work = vitpipe_sha256(NULL, 0) ? NULL : calloc(1, sizeof *work);
    if (!work)
        return 1;
    work->slot_count = sha256_at_once();
    work->next = contents;
    work->end = contents + count;
    work->sets = (struct table_sets){work->tables, SIXTEEN};
    for (size_t n = 0; n < work->slot_count; n++)
        work->slots[n].huffman.sets = &work->sets;
    while (digest_rows(work))
        ;
    free(work);
    return digest_files(contents, count);
}
