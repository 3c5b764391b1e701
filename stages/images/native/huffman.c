/* Our own Huffman decoder in the place of libjpeg's, for images of one sequential scan: the same coefficients, sooner.
 *
 * One look at 10 bits gives most coefficients whole, and those that no one asked for are stepped over. Whatever is not
 * as it should be is refused, and read again by Pillow, with libjpeg's own decoder. */

#include <stdio.h>
#include <string.h>

#include "huffman.h"

/* libjpeg's, of which applications see only a pointer; these two stand first in every version. */
struct jpeg_entropy_decoder {
    void (*start_pass)(j_decompress_ptr info);
    boolean (*decode_mcu)(j_decompress_ptr info, JBLOCKROW *blocks);
};

#define LAST_16 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63
static const unsigned char ZIGZAG[64 + END_OF_BLOCK] = { /* steps beyond the block end on its last place */
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,
    6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31,
    39, 46, 53, 60, 61, 54, 47, 55, 62, 63, LAST_16, LAST_16, LAST_16, LAST_16, LAST_16, LAST_16, LAST_16, LAST_16};

static void refuse(j_decompress_ptr info) { (*info->err->error_exit)((j_common_ptr)info); }

enum { PAIRS = 56 / LOOK }; /* that a full window holds at least */

#define INLINE static inline __attribute__((always_inline)) /* so that the bits stay in registers */

/* At least 56 bits in the window; past a marker or the end they are zeros, which are counted. */
INLINE void fill(struct bits *b) {
    if (b->end - b->at >= 8) {
        uint64_t next;
        memcpy(&next, b->at, 8);
        next = __builtin_bswap64(next);
        if (!((~next - 0x0101010101010101u) & next & 0x8080808080808080u)) { /* no byte is 0xFF */
            b->window |= next >> b->filled;
            b->at += (63 - b->filled) >> 3;
            b->filled |= 56;
            return;
        }
    }
    for (; b->filled < 56; b->filled += 8) {
        if (b->at >= b->end || (*b->at == 0xFF && (b->end - b->at < 2 || b->at[1]))) {
            b->lacking += 8;
            continue;
        }
        b->window |= (uint64_t)*b->at << (56 - b->filled);
        b->at += *b->at == 0xFF ? 2 : 1;
    }
}

INLINE void take(struct bits *b, int count) {
    b->window <<= count;
    b->filled -= count;
}

/* A symbol that the look does not tell whole, as if it did; its bits are taken. */
INLINE uint32_t read_rest(j_decompress_ptr info, struct bits *b, const struct table *table, uint32_t look, int is_dc) {
    fill(b);
    if (!look) {
        const int ahead = (int)(b->window >> 48);
        int length = LOOK + 1;
        while (length <= 16 && ahead >> (16 - length) >= table->end[length])
            length++;
        if (length > 16)
            refuse(info);
        const int place = (ahead >> (16 - length)) + table->offset[length];
        look = look_for(table->symbols[place & 255], length, 0, is_dc);
    }
    take(b, look & TAKEN);
    if (look & WHOLE)
        return look & ~(uint32_t)TAKEN;
    const int size = (int)(look >> VALUE_AT);
    const int value = extended((unsigned)(b->window >> (64 - size)), size);
    take(b, size);
    return told(look >> STEPS_AT & STEPS, 0, value);
}

/* One block; into nothing where `block` is NULL, but for the DC value that the next one builds on. */
INLINE void read_block(j_decompress_ptr info, struct bits *b, const struct table *dc, const struct table *ac,
                       int *last_dc, JCOEF *block) {
    fill(b);
    uint32_t look = dc->looks[b->window >> (64 - LOOK)];
    if (look & WHOLE)
        take(b, look & TAKEN);
    else
        look = read_rest(info, b, dc, look, 1);
    *last_dc += (int16_t)(look >> VALUE_AT);
    if (*last_dc != (int16_t)*last_dc)
        refuse(info);
    if (block)
        block[0] = (JCOEF)*last_dc;
    unsigned place = 0;
    while (place < 63) {
        fill(b);
        for (int n = 0; n < PAIRS && place < 63; n++) {
            uint64_t pair = ac->pairs[b->window >> (64 - LOOK)];
            if (!(pair & WHOLE)) {
                pair = alone(read_rest(info, b, ac, (uint32_t)pair, 0), 0);
                n = PAIRS;
            }
            place += pair >> STEPS_AT & STEPS;
            if (block)
                block[ZIGZAG[place]] = (JCOEF)(pair >> VALUE_AT);
            if (place >= 63) { /* the second is of another block */
                take(b, pair >> FIRST_TAKEN_AT & TAKEN);
                break;
            }
            take(b, pair & TAKEN);
            place += pair >> (SECOND_AT + STEPS_AT) & STEPS;
            if (block)
                block[ZIGZAG[place]] = (JCOEF)(pair >> (SECOND_AT + VALUE_AT));
        }
    }
    if (place > 63 && place < END_OF_BLOCK)
        refuse(info);
}

INLINE void read_mcu(j_decompress_ptr info, struct huffman *huffman, JBLOCKROW *blocks) {
    const struct tables *const tables = huffman->tables;
    struct bits b = huffman->bits;
    for (int n = 0; n < info->blocks_in_MCU; n++) {
        const int component = info->MCU_membership[n];
        const jpeg_component_info *const of = info->cur_comp_info[component];
        read_block(info, &b, &tables->dc[of->dc_tbl_no], &tables->ac[of->ac_tbl_no], &huffman->last_dc[component],
                   blocks ? blocks[n][0] : NULL);
    }
    if (b.filled < b.lacking)
        refuse(info); /* more was read than there is */
    huffman->bits = b;
}

/* Whether a segment ends here as it should: less than a byte of padding, then a marker. */
static int at_end(const struct bits *b) {
    return b->filled - b->lacking < 8 && b->end - b->at >= 2 && b->at[0] == 0xFF && b->at[1] != 0;
}

static void restart(j_decompress_ptr info, struct huffman *huffman) {
    struct bits *const b = &huffman->bits;
    if (!at_end(b) || b->at[1] != 0xD0 + huffman->next_restart)
        refuse(info);
    *b = (struct bits){.at = b->at + 2, .end = b->end};
    huffman->next_restart = (huffman->next_restart + 1) & 7;
    huffman->to_restart = info->restart_interval;
    memset(huffman->last_dc, 0, sizeof huffman->last_dc);
}

static boolean decode_mcu(j_decompress_ptr info, JBLOCKROW *blocks) {
    struct huffman *const huffman = info->client_data;
    if (info->restart_interval && huffman->to_restart-- == 0) {
        restart(info, huffman);
        huffman->to_restart--;
    }
    if (blocks && huffman->column >= huffman->from && huffman->column < huffman->to)
        read_mcu(info, huffman, blocks);
    else
        read_mcu(info, huffman, NULL);
    if (++huffman->column == info->MCUs_per_row) {
        huffman->column = 0;
        if (--huffman->rows_left == 0) { /* libjpeg goes on with the marker that ends the scan */
            if (!at_end(&huffman->bits))
                refuse(info);
            info->src->next_input_byte = huffman->bits.at;
            info->src->bytes_in_buffer = (size_t)(huffman->bits.end - huffman->bits.at);
        }
    }
    return TRUE;
}

int take_over(j_decompress_ptr info, struct huffman *huffman) {
    huffman->tables = choose_tables(info, huffman->sets);
    if (!huffman->tables)
        return 1;
    memset(huffman->last_dc, 0, sizeof huffman->last_dc);
    const unsigned char *const at = info->src->next_input_byte;
    huffman->bits = (struct bits){.at = at, .end = at + info->src->bytes_in_buffer};
    huffman->to_restart = info->restart_interval;
    huffman->next_restart = huffman->column = huffman->from = 0;
    huffman->to = info->MCUs_per_row;
    huffman->rows_left = info->MCU_rows_in_scan;
    info->client_data = huffman;
    info->entropy->decode_mcu = decode_mcu;
    return 0;
}
