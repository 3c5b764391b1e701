/* Tables of our Huffman decoder, shared by images that have the same. */

#pragma once

#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

enum { LOOK = 10 };

struct table {
    uint32_t looks[1 << LOOK]; /* what the next bits tell, 0 for a longer code */
    uint64_t pairs[1 << LOOK]; /* the same of two symbols, for AC alone */
    int end[17], offset[17];   /* of each length: the code after the last, and what leads from a code to its symbol */
    unsigned char symbols[256];
    unsigned char of_bits[17], of_values[256]; /* the file's own, of which it was made */
    int made;
};

/* What a look tells, from its lowest bit: bits taken, whether that is the whole symbol, steps on in the block, value.
 * An end of block is a step beyond any other, and like a run of 16 zeros it has a zero for a value, which does no harm
 * where it is stored. Without WHOLE: only the code is taken, and the value stands for the size of what follows. */
enum { TAKEN = 63, WHOLE = 64, STEPS_AT = 8, STEPS = 255, VALUE_AT = 16, END_OF_BLOCK = 128 };
/* A pair tells of the symbol after it too where that is whole as well: above what is told of the first, the bits taken
 * by the first alone, then steps and value of the second; else none and the value of the first again. */
enum { SECOND_AT = 32, FIRST_TAKEN_AT = SECOND_AT };

struct tables {
    struct table dc[NUM_HUFF_TBLS], ac[NUM_HUFF_TBLS];
    int images; /* under way that have them */
};

/* Tables for images under way. */
struct table_sets {
    struct tables *first; /* at least as many as images; all zeros at first */
    size_t count;
};

/* The set that has what this image's scan needs, to be given up after it; NULL when that is damaged. */
struct tables *choose_tables(j_decompress_ptr info, const struct table_sets *sets);
void give_up_tables(struct tables *tables);

/* The number that `size` bits stand for. */
static inline int extended(unsigned bits, int size) {
    return bits >> (size - 1) ? (int)bits : (int)bits - (1 << size) + 1;
}

static inline uint32_t told(int steps, int taken, int value) {
    return (uint32_t)value << VALUE_AT | (uint32_t)(steps << STEPS_AT | taken);
}

/* What a look tells of a symbol whose code has `length` bits. */
static inline uint32_t look_for(int symbol, int length, unsigned look, int is_dc) {
    const int run = is_dc ? 0 : symbol >> 4, size = is_dc ? symbol : symbol & 15;
    if (size == 0)
        return told(is_dc ? 0 : run == 15 ? 16 : END_OF_BLOCK, length, 0) | WHOLE;
    if (length + size > LOOK)
        return told(run + 1, length, size);
    const unsigned bits = look >> (LOOK - length - size) & ((1u << size) - 1);
    return told(run + 1, length + size, extended(bits, size)) | WHOLE;
}

/* As a pair that tells of one symbol. */
static inline uint64_t alone(uint32_t look, int taken) {
    return (uint64_t)((look & ~(uint32_t)0xFFFF) | (uint32_t)taken) << SECOND_AT | look;
}
