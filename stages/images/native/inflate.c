/* A decoder of DEFLATE for pixels: most of a PNG's codes are literals, and one look gives up to two of them. */

#include <string.h>

#include "inflate.h"

#define INLINE static inline __attribute__((always_inline)) /* so that the bits stay in registers */
#define LIKELY(what) __builtin_expect(!!(what), 1)

/* At least 56 bits, as long as there is input: behind it come bits that mean nothing, and then none. */
INLINE void fill(struct stream *s) {
    if (LIKELY(s->in <= s->end && s->count >= 0)) {
        uint64_t next;
        memcpy(&next, s->in, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        next = __builtin_bswap64(next);
#endif
        s->bits |= next << s->count;
        s->in += (63 - s->count) >> 3;
        s->count |= 56;
    }
}

INLINE uint32_t take(struct stream *s, int count) {
    const uint32_t taken = (uint32_t)(s->bits & ((1ull << count) - 1));
    s->bits >>= count;
    s->count -= count;
    return taken;
}

/* Bits beyond the input were taken. */
static int is_beyond(const struct stream *s) { return s->count < 0 || s->in - (s->count >> 3) > s->end; }

/* Back to the first byte of which no bit was taken. */
static void align(struct stream *s) {
    s->in -= s->count >> 3;
    s->bits = 0, s->count = 0;
}

static int begin_stored(struct inflate *z) {
    struct stream *const s = &z->stream;
    if (is_beyond(s))
        return 1;
    align(s);
    if (s->end - s->in < 4)
        return 1;
    z->stored = (size_t)(s->in[0] | s->in[1] << 8);
    const size_t inverse = (size_t)(s->in[2] | s->in[3] << 8);
    s->in += 4;
    z->block = STORED;
    return (z->stored ^ inverse) != 0xFFFF;
}

static int begin_fixed(struct inflate *z) {
    unsigned char lengths[SYMBOLS + FAR_SYMBOLS];
    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 112);
    memset(lengths + 256, 7, 24);
    memset(lengths + 280, 8, 8);
    memset(lengths + SYMBOLS, 5, FAR_SYMBOLS);
    z->block = CODED;
    return make_codes(z->codes, lengths, SYMBOLS) || make_far(z->far, lengths + SYMBOLS, FAR_SYMBOLS);
}

/* The lengths of both codes, themselves coded. */
static int read_lengths(struct stream *s, unsigned char *lengths, int wanted) {
    static const unsigned char ORDER[LENGTH_SYMBOLS] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                        11, 4,  12, 3, 13, 2, 14, 1, 15};
    unsigned char own[LENGTH_SYMBOLS] = {0};
    uint32_t table[1 << LENGTH_LOOK];
    const int given = (int)take(s, 4) + 4;
    for (int n = 0; n < given; n++) {
        fill(s);
        own[ORDER[n]] = (unsigned char)take(s, 3);
    }
    if (make_lengths(table, own))
        return 1;
    for (int n = 0; n < wanted;) {
        fill(s);
        const uint32_t entry = table[s->bits & ((1 << LENGTH_LOOK) - 1)], symbol = VALUE(entry);
        take(s, TAKEN(entry));
        if (symbol < 16) {
            lengths[n++] = (unsigned char)symbol;
            continue;
        }
        if (symbol == 16 && !n)
            return 1;
        const unsigned char what = symbol == 16 ? lengths[n - 1] : 0;
        const uint32_t times = symbol == 16 ? 3 + take(s, 2) : symbol == 17 ? 3 + take(s, 3) : 11 + take(s, 7);
        if ((int)times > wanted - n)
            return 1;
        memset(lengths + n, what, times);
        n += (int)times;
    }
    return is_beyond(s);
}

static int begin_coded(struct inflate *z) {
    unsigned char lengths[SYMBOLS + FAR_SYMBOLS];
    const int symbols = ENDS + 1 + (int)take(&z->stream, 5), fars = 1 + (int)take(&z->stream, 5);
    if (symbols > 286 || fars > FARS || read_lengths(&z->stream, lengths, symbols + fars) || !lengths[ENDS])
        return 1;
    z->block = CODED;
    return make_codes(z->codes, lengths, symbols) || make_far(z->far, lengths + symbols, fars);
}

static int begin_block(struct inflate *z) {
    fill(&z->stream);
    z->is_last = (int)take(&z->stream, 1);
    switch (take(&z->stream, 2)) {
    case 0: return begin_stored(z);
    case 1: return begin_fixed(z);
    case 2: return begin_coded(z);
    default: return 1;
    }
}

static size_t copy_stored(struct inflate *z, unsigned char *to, size_t at, size_t wanted) {
    struct stream *const s = &z->stream;
    const size_t some = z->stored < wanted - at ? z->stored : wanted - at;
    if (some > (size_t)(s->end - s->in)) {
        z->is_damaged = 1;
        return at;
    }
    memcpy(to + at, s->in, some);
    s->in += some;
    z->stored -= some;
    if (!z->stored)
        z->block = NO_BLOCK;
    return at + some;
}

/* Repeat what stands `back` bytes before; up to 7 bytes more may be written. */
INLINE void repeat(unsigned char *to, size_t back, size_t length) {
    const unsigned char *from = to - back, *const end = to + length;
    if (back >= 8) {
        for (; to < end; to += 8, from += 8)
            memcpy(to, from, 8);
    } else if (back == 1) {
        memset(to, *from, length);
    } else {
        while (to < end)
            *to++ = *from++;
    }
}

/* An entry of a table whose look is `look` bits; those of a first look are taken where there is a second one. */
INLINE uint32_t look_up(struct stream *s, const uint32_t *table, int look) {
    const uint32_t entry = table[s->bits & ((1u << look) - 1)];
    if (LIKELY(!(entry & SECOND)))
        return entry;
    take(s, look);
    return table[VALUE(entry) + (s->bits & ((1u << (LONGEST_CODE - look)) - 1))];
}

#define EMIT(entry)                                                                                                    \
    do {                                                                                                               \
        to[at] = (unsigned char)VALUE(entry);                                                                          \
        to[at + 1] = (unsigned char)(VALUE(entry) >> 8);                                                               \
        at += 1 + ((entry) / PAIR & 1);                                                                                \
        s.bits >>= TAKEN(entry);                                                                                       \
        s.count -= TAKEN(entry);                                                                                       \
    } while (0)

/* Symbols of a block. Four looks take at most 48 of 56 bits, and so do a length and a distance. */
static size_t decode_block(struct inflate *z, unsigned char *to, size_t at, size_t wanted) {
    const uint32_t *const codes = z->codes, mask = (1u << LOOK) - 1;
    struct stream s = z->stream;
    while (at < wanted && s.count >= 0) {
        fill(&s);
        uint32_t entry;
        int looks = 4;
        for (; looks && LIKELY((entry = codes[s.bits & mask]) & LITERAL); looks--)
            EMIT(entry);
        if (!looks)
            continue;
        fill(&s);
        entry = look_up(&s, codes, LOOK);
        if (entry & LITERAL) {
            EMIT(entry);
            continue;
        }
        take(&s, TAKEN(entry));
        if (entry & (END | WRONG)) {
            z->is_damaged |= (entry & WRONG) != 0;
            z->block = NO_BLOCK;
            break;
        }
        const size_t length = VALUE(entry) + take(&s, EXTRA(entry));
        entry = look_up(&s, z->far, FAR_LOOK);
        take(&s, TAKEN(entry));
        const size_t back = VALUE(entry) + take(&s, EXTRA(entry));
        if (entry & WRONG || back > at || back > z->reach) {
            z->is_damaged = 1;
            break;
        }
        repeat(to + at, back, length);
        at += length;
    }
    z->stream = s;
    z->is_damaged |= is_beyond(&s);
    return at;
}

int begin_inflate(struct inflate *z, const unsigned char *in, size_t size) {
    z->stream = (struct stream){.in = in + 2, .end = in + size};
    z->block = NO_BLOCK;
    z->is_last = z->is_damaged = 0;
    if (size < 2 || (in[0] & 15) != 8 || in[0] >> 4 > 7 || (in[0] << 8 | in[1]) % 31 || in[1] & 32)
        return 1;
    z->reach = (size_t)256 << (in[0] >> 4);
    return 0;
}

size_t inflate(struct inflate *z, unsigned char *to, size_t at, size_t wanted) {
    while (at < wanted && !z->is_damaged) {
        if (z->block == STORED)
            at = copy_stored(z, to, at, wanted);
        else if (z->block == CODED)
            at = decode_block(z, to, at, wanted);
        else if (z->is_last)
            break;
        else
            z->is_damaged = begin_block(z);
    }
    return at;
}

int is_inflated(struct inflate *z, uint32_t adler) {
    struct stream *const s = &z->stream;
    if (z->is_damaged || z->block != NO_BLOCK || !z->is_last || is_beyond(s))
        return 0;
    align(s);
    if (s->end - s->in != 4)
        return 0;
    uint32_t found;
    memcpy(&found, s->in, 4);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    found = __builtin_bswap32(found);
#endif
    return found == adler;
}
