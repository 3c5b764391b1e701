/* Canonical Huffman codes (RFC 1951, section 3.2.2) as tables: a look at the next bits, and for long codes a second one. */

#include "codes.h"

enum { FIRST_LENGTH = 257, LENGTHS = 29 };
static const uint16_t LENGTH_BASE[LENGTHS] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                              31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const unsigned char LENGTH_EXTRA[LENGTHS] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                    2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t FAR_BASE[FARS] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
                                        193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};

static uint32_t code_entry(int symbol, int taken) {
    if (symbol < ENDS)
        return ENTRY(taken, 0, LITERAL, symbol);
    if (symbol == ENDS)
        return ENTRY(taken, 0, END, 0);
    const int length = symbol - FIRST_LENGTH;
    return length < LENGTHS ? ENTRY(taken, LENGTH_EXTRA[length], 0, LENGTH_BASE[length]) : ENTRY(taken, 0, WRONG, 0);
}

static uint32_t far_entry(int symbol, int taken) {
    return symbol < FARS ? ENTRY(taken, symbol < 4 ? 0 : symbol / 2 - 1, 0, FAR_BASE[symbol]) : ENTRY(taken, 0, WRONG, 0);
}

static uint32_t plain_entry(int symbol, int taken) { return ENTRY(taken, 0, 0, symbol); }

static unsigned reversed(unsigned code, int bits) {
    unsigned to = 0;
    for (; bits; bits--, code >>= 1)
        to = to << 1 | (code & 1);
    return to;
}

/* Make a table of codes of these lengths, looked up by `look` bits and then by the rest. 1 when they are no whole code;
 * a single one of one bit, or none, may be where `may_lack`. */
static int make_table(uint32_t *table, int look, const unsigned char *lengths, int symbols, int may_lack,
                      uint32_t (*entry)(int, int)) {
    int counts[LONGEST_CODE + 1] = {0}, used = 0;
    unsigned next[LONGEST_CODE + 2] = {0};
    for (int n = 0; n < symbols; n++)
        counts[lengths[n]]++;
    counts[0] = 0;
    for (int bits = 1; bits <= LONGEST_CODE; bits++) {
        next[bits + 1] = (next[bits] + (unsigned)counts[bits]) << 1;
        used += counts[bits];
        if (next[bits] + (unsigned)counts[bits] > 1u << bits)
            return 1;
    }
    const int is_whole = next[LONGEST_CODE + 1] == 2u << LONGEST_CODE;
    if (!is_whole && !(may_lack && (!used || (used == 1 && counts[1]))))
        return 1;
    for (int n = 0; n < 1 << look; n++)
        table[n] = ENTRY(1, 0, WRONG, 0);
    const int rest = LONGEST_CODE - look;
    uint32_t behind = 1u << look; /* where the next second table begins */
    for (int n = 0; n < symbols; n++) {
        const int bits = lengths[n];
        if (!bits)
            continue;
        const unsigned code = reversed(next[bits]++, bits);
        if (bits <= look) {
            for (unsigned at = code; at < 1u << look; at += 1u << bits)
                table[at] = entry(n, bits);
            continue;
        }
        uint32_t *const first = table + (code & ((1u << look) - 1));
        if (!(*first & SECOND)) {
            *first = ENTRY(look, 0, SECOND, behind);
            behind += 1u << rest;
        }
        uint32_t *const second = table + VALUE(*first);
        for (unsigned at = code >> look; at < 1u << rest; at += 1u << (bits - look))
            second[at] = entry(n, bits - look);
    }
    return 0;
}

/* Where a look holds two literals, give both. From behind: an entry looks at those before it. */
static void pair_literals(uint32_t *table) {
    for (uint32_t n = 1u << LOOK; n--;) {
        const uint32_t one = table[n];
        if (!(one & LITERAL))
            continue;
        const uint32_t other = table[n >> TAKEN(one)];
        if (other & LITERAL && TAKEN(one) + TAKEN(other) <= LOOK)
            table[n] = ENTRY(TAKEN(one) + TAKEN(other), 0, LITERAL | PAIR, VALUE(one) | (VALUE(other) & 255) << 8);
    }
}

int make_codes(uint32_t *table, const unsigned char *lengths, int symbols) {
    if (make_table(table, LOOK, lengths, symbols, 0, code_entry))
        return 1;
    pair_literals(table);
    return 0;
}

int make_far(uint32_t *table, const unsigned char *lengths, int symbols) {
    return make_table(table, FAR_LOOK, lengths, symbols, 1, far_entry);
}

int make_lengths(uint32_t *table, const unsigned char *lengths) {
    return make_table(table, LENGTH_LOOK, lengths, LENGTH_SYMBOLS, 0, plain_entry);
}
