/* Our own Huffman decoder in the place of libjpeg's, for images of one sequential scan: the same coefficients, sooner.
 *
 * One look at 10 bits gives most coefficients whole, and those that no one asked for are stepped over. Whatever is not
 * as it should be is refused, and read again by Pillow, with libjpeg's own decoder. */

#include <stdio.h>
#include <string.h>

#include "huffman.h"

/* What a look tells, from its lowest bit: bits taken, whether that is the whole symbol, steps on in the block, value.
 * An end of block is a step beyond any other, and like a run of 16 zeros it has a zero for a value, which does no harm
 * where it is stored. Without WHOLE: only the code is taken, and the value stands for the size of what follows. */
enum { TAKEN = 63, WHOLE = 64, STEPS_AT = 8, STEPS = 255, VALUE_AT = 16, END_OF_BLOCK = 128 };
/* A pair tells of the symbol after it too where that is whole as well: above what is told of the first, the bits taken
 * by the first alone, then steps and value of the second; else none and the value of the first again. */
enum { SECOND_AT = 32, FIRST_TAKEN_AT = SECOND_AT };

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

static int extended(unsigned bits, int size) {
    return bits >> (size - 1) ? (int)bits : (int)bits - (1 << size) + 1;
}

static uint32_t told(int steps, int taken, int value) {
    return (uint32_t)value << VALUE_AT | (uint32_t)(steps << STEPS_AT | taken);
}

static uint32_t look_for(int symbol, int length, unsigned look, int is_dc) {
    const int run = is_dc ? 0 : symbol >> 4, size = is_dc ? symbol : symbol & 15;
    if (size == 0)
        return told(is_dc ? 0 : run == 15 ? 16 : END_OF_BLOCK, length, 0) | WHOLE;
    if (length + size > LOOK)
        return told(run + 1, length, size);
    const unsigned bits = look >> (LOOK - length - size) & ((1u << size) - 1);
    return told(run + 1, length + size, extended(bits, size)) | WHOLE;
}

static uint64_t alone(uint32_t look, int taken) {
    return (uint64_t)((look & ~(uint32_t)0xFFFF) | (uint32_t)taken) << SECOND_AT | look;
}

static uint64_t pair_for(const struct table *table, unsigned look) {
    const uint32_t first = table->looks[look];
    const int taken = first & TAKEN;
    const uint32_t second = table->looks[look << taken & ((1 << LOOK) - 1)];
    if (!(first & WHOLE))
        return first;
    if ((first >> STEPS_AT & STEPS) == END_OF_BLOCK || !(second & WHOLE) || taken + (int)(second & TAKEN) > LOOK)
        return alone(first, taken);
    return (uint64_t)((second & ~(uint32_t)0xFF) | (uint32_t)taken) << SECOND_AT | (first + (second & TAKEN));
}

static int build(struct table *table, const JHUFF_TBL *from, int is_dc) {
    unsigned code = 0;
    int place = 0;
    if (!from)
        return 1;
    if (table->made && !memcmp(table->of_bits, from->bits, sizeof from->bits) &&
        !memcmp(table->of_values, from->huffval, sizeof from->huffval))
        return 0;
    table->made = 0;
    memset(table->looks, 0, sizeof table->looks);
    for (int length = 1; length <= 16; length++, code <<= 1) {
        table->offset[length] = place - (int)code;
        for (int n = 0; n < from->bits[length]; n++, code++, place++) {
            const int symbol = from->huffval[place & 255];
            if (place > 255 || code >= 1u << length || (is_dc && symbol > 15))
                return 1;
            table->symbols[place] = (unsigned char)symbol;
            if (length <= LOOK)
                for (unsigned look = code << (LOOK - length); look < (code + 1) << (LOOK - length); look++)
                    table->looks[look] = look_for(symbol, length, look, is_dc);
        }
        table->end[length] = (int)code;
    }
    for (unsigned look = 0; !is_dc && look < 1 << LOOK; look++)
        table->pairs[look] = pair_for(table, look);
    memcpy(table->of_bits, from->bits, sizeof from->bits);
    memcpy(table->of_values, from->huffval, sizeof from->huffval);
    table->made = 1;
    return 0;
}

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
    struct bits b = huffman->bits;
    for (int n = 0; n < info->blocks_in_MCU; n++) {
        const int component = info->MCU_membership[n];
        const jpeg_component_info *const of = info->cur_comp_info[component];
        read_block(info, &b, &huffman->dc[of->dc_tbl_no], &huffman->ac[of->ac_tbl_no], &huffman->last_dc[component],
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
    for (int c = 0; c < info->comps_in_scan; c++) {
        const int dc = info->cur_comp_info[c]->dc_tbl_no, ac = info->cur_comp_info[c]->ac_tbl_no;
        if (build(&huffman->dc[dc], info->dc_huff_tbl_ptrs[dc], 1) || build(&huffman->ac[ac], info->ac_huff_tbl_ptrs[ac], 0))
            return 1;
        huffman->last_dc[c] = 0;
    }
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
