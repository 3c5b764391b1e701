/* Digests of whole JPEGs and of their pixels, of which no more than some rows are ever held: they are digested while they lie
 * in the processor's cache, those of two images at a time.
 *
 * That of the pixels is of `head` and then rows x columns x 3 bytes. Refuses what `vitpipe_decode_part` refuses. */

#include <stdlib.h>
#include <string.h>

#include "decoder.h"
#include "jpeg.h"
#include "sha256.h"

enum { ROWS = 32, AT_ONCE = 2 };
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
    unsigned char *rows; /* what is not digested yet, and room for ROWS more */
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
    slot->rows = malloc(BLOCK + 3 * (size_t)content->width * ROWS);
    if (!slot->rows)
        return;
    if (open_jpeg(&slot->decoder, &slot->huffman, content->data, content->size, (int)content->width,
                  (int)content->height)) {
        free(slot->rows);
        return;
    }
    slot->content = content;
    memcpy(slot->rows, content->head, content->head_size);
    slot->held = content->head_size;
    slot->digested = 0;
    memcpy(slot->state, SHA256_START, sizeof slot->state);
}

static void read_rows(j_decompress_ptr info, unsigned char *to, JDIMENSION count) {
    const size_t row_bytes = 3 * (size_t)info->output_width;
    JSAMPROW rows[ROWS];
    for (JDIMENSION n = 0; n < count; n++)
        rows[n] = to + n * row_bytes;
    for (JDIMENSION have = 0; have < count;) {
        const JDIMENSION more = jpeg_read_scanlines(info, rows + have, count - have);
        if (!more)
            refuse_jpeg((j_common_ptr)info);
        have += more;
    }
}

/* Decode some rows behind those that are held; after the last the rest of the file. 1 when it is refused. */
static int decode_rows(struct slot *slot) {
    j_decompress_ptr info = &slot->decoder.info;
    const JDIMENSION left = info->output_height - info->output_scanline, count = left < ROWS ? left : ROWS;
    if (setjmp(slot->decoder.refused))
        return 1;
    read_rows(info, slot->rows + slot->held, count);
    slot->held += 3 * (size_t)info->output_width * count;
    if (count == left)
        jpeg_finish_decompress(info); /* to the end of the file: what is damaged there is found too */
    return 0;
}

static struct message to_digest(const struct slot *slot, int is_last) {
    struct message message = {.body = slot->rows, .body_size = is_last ? slot->held : slot->held / BLOCK * BLOCK,
                              .before = slot->digested, .goes_on = !is_last};
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

/* Whether rows of this slot's image, or of the next that is not refused, wait to be digested. */
static int has_rows(struct slot *slot, struct content *contents, size_t count, size_t *next) {
    for (;;) {
        if (slot->content && !decode_rows(slot))
            return 1;
        if (slot->content)
            leave(slot, REFUSED);
        else if (*next == count)
            return 0;
        else
            enter(slot, &contents[(*next)++]);
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

/* What is found of each, and its digests. 0, or 1 where this CPU cannot or memory lacks. */
int vitpipe_contents(struct content *contents, size_t count) {
    struct slot *const slots = calloc(AT_ONCE, sizeof *slots);
    size_t next = 0;
    int failed = !slots || vitpipe_sha256(NULL, 0);
    while (!failed) {
        struct message messages[AT_ONCE];
        struct slot *of[AT_ONCE];
        size_t under_way = 0;
        for (struct slot *slot = slots; slot < slots + AT_ONCE; slot++)
            if (has_rows(slot, contents, count, &next)) {
                const j_decompress_ptr info = &slot->decoder.info;
                messages[under_way] = to_digest(slot, info->output_scanline == info->output_height);
                of[under_way++] = slot;
            }
        if (!under_way)
            break;
        vitpipe_sha256(messages, under_way);
        for (size_t n = 0; n < under_way; n++)
            digested(of[n], &messages[n]);
    }
    free(slots);
    return failed || digest_files(contents, count);
}
