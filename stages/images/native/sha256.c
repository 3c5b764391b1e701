/* SHA-256 (FIPS 180-4) of several messages: two at a time, for the CPU's instructions wait for each other within one, or
 * sixteen at a time where AVX-512 is and there are enough.
 *
 * Digests are those of any other SHA-256. Only for CPUs with the instructions; elsewhere the caller has hashlib. */

#include <string.h>

#include "sha256.h"

enum { LENGTH = 8, PIECES = 3, PAIR = 2 };
enum { ENOUGH = 8 }; /* for sixteen at a time to be sooner, although some are of nothing */

#if defined(__x86_64__) && defined(__GNUC__)

#include <cpuid.h>
#include <immintrin.h>

const uint32_t SHA256_K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2};

#define SHA __attribute__((target("sha,sse4.1")))
#define INLINE static inline __attribute__((always_inline)) SHA

struct state { /* words in the order of the instructions */
    __m128i abef, cdgh;
};

/* Blocks of a message that lie together; the pieces follow each other. */
struct lane {
    struct message *message;
    const unsigned char *at[PIECES];
    size_t blocks[PIECES];
    int piece;
    unsigned char first[BLOCK], last[2 * BLOCK];
};

/* Rounds 4n to 4n + 3; words[n & 3] are theirs. */
INLINE void four_rounds(struct state *s, __m128i *words, int n) {
    const __m128i sum = _mm_add_epi32(words[n & 3], _mm_load_si128((const __m128i *)(SHA256_K + 4 * n)));
    s->cdgh = _mm_sha256rnds2_epu32(s->cdgh, s->abef, sum);
    if (n >= 3 && n < 15) {
        const __m128i between = _mm_alignr_epi8(words[n & 3], words[(n - 1) & 3], 4);
        words[(n + 1) & 3] = _mm_sha256msg2_epu32(_mm_add_epi32(words[(n + 1) & 3], between), words[n & 3]);
    }
    s->abef = _mm_sha256rnds2_epu32(s->abef, s->cdgh, _mm_shuffle_epi32(sum, 0x0E));
    if (n >= 1 && n < 13)
        words[(n - 1) & 3] = _mm_sha256msg1_epu32(words[(n - 1) & 3], words[n & 3]);
}

INLINE void load(__m128i *words, const unsigned char *block) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    for (int n = 0; n < 4; n++)
        words[n] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * n)), big_endian);
}

INLINE void add(struct state *s, const struct state *before) {
    s->abef = _mm_add_epi32(s->abef, before->abef);
    s->cdgh = _mm_add_epi32(s->cdgh, before->cdgh);
}

/* From words as they are written, h[0] to h[7]. */
INLINE struct state ordered(const uint32_t *h) {
    return (struct state){_mm_set_epi32((int)h[0], (int)h[1], (int)h[4], (int)h[5]),
                          _mm_set_epi32((int)h[2], (int)h[3], (int)h[6], (int)h[7])};
}

INLINE void write_state(const struct state *s, uint32_t *h) {
    uint32_t abef[4], cdgh[4];
    _mm_storeu_si128((__m128i *)abef, s->abef);
    _mm_storeu_si128((__m128i *)cdgh, s->cdgh);
    for (int n = 0; n < 2; n++) {
        h[n] = abef[3 - n];
        h[n + 4] = abef[1 - n];
        h[n + 2] = cdgh[3 - n];
        h[n + 6] = cdgh[1 - n];
    }
}

SHA static void take_one(const struct lane *lane, size_t blocks) {
    struct state s = ordered(lane->message->state);
    const unsigned char *at = lane->at[lane->piece];
    for (size_t block = 0; block < blocks; block++, at += BLOCK) {
        const struct state before = s;
        __m128i words[4];
        load(words, at);
#pragma GCC unroll 16
        for (int n = 0; n < 16; n++)
            four_rounds(&s, words, n);
        add(&s, &before);
    }
    write_state(&s, lane->message->state);
}

SHA static void take_two(const struct lane *one, const struct lane *other, size_t blocks) {
    struct state s = ordered(one->message->state), t = ordered(other->message->state);
    const unsigned char *at = one->at[one->piece], *beside = other->at[other->piece];
    for (size_t block = 0; block < blocks; block++, at += BLOCK, beside += BLOCK) {
        const struct state before = s, before_beside = t;
        __m128i words[4], words_beside[4];
        load(words, at);
        load(words_beside, beside);
#pragma GCC unroll 16
        for (int n = 0; n < 16; n++) {
            four_rounds(&s, words, n);
            four_rounds(&t, words_beside, n);
        }
        add(&s, &before);
        add(&t, &before_beside);
    }
    write_state(&s, one->message->state);
    write_state(&t, other->message->state);
}

/* At least one; those that lack are the first again, into nothing. */
static void take_sixteen(struct lane *const *lanes, size_t count, size_t blocks) {
    uint32_t nothing[8] = {0}, *states[SIXTEEN];
    const unsigned char *from[SIXTEEN];
    for (size_t n = 0; n < SIXTEEN; n++) {
        const struct lane *const lane = lanes[n < count ? n : 0];
        states[n] = n < count ? lane->message->state : nothing;
        from[n] = lane->at[lane->piece];
    }
    sha256_sixteen(states, from, blocks);
}

/* Lay out a message as a first block that may begin with its head, blocks of its body where they lie, and its end. */
static void begin(struct lane *lane, struct message *message) {
    uint64_t taken = 0, kept = 0;
    memset(lane, 0, sizeof *lane);
    lane->message = message;
    if (message->head_size && message->head_size + message->body_size >= BLOCK) {
        taken = BLOCK - message->head_size;
        memcpy(lane->first, message->head, message->head_size);
        memcpy(lane->first + message->head_size, message->body, taken);
        lane->blocks[0] = 1;
    } else if (message->head_size) {
        kept = message->head_size;
        memcpy(lane->last, message->head, kept);
    }
    const uint64_t whole = kept ? 0 : (message->body_size - taken) / BLOCK;
    const uint64_t rest = message->body_size - taken - whole * BLOCK;
    lane->at[0] = lane->first;
    lane->at[1] = message->body + taken;
    lane->blocks[1] = whole;
    lane->at[2] = lane->last;
    if (message->goes_on)
        return;
    if (rest)
        memcpy(lane->last + kept, message->body + taken + whole * BLOCK, rest);
    lane->last[kept + rest] = 0x80;
    lane->blocks[2] = kept + rest + 1 + LENGTH > BLOCK ? 2 : 1;
    const uint64_t bits = __builtin_bswap64(8 * (message->before + message->head_size + message->body_size));
    memcpy(lane->last + lane->blocks[2] * BLOCK - LENGTH, &bits, LENGTH);
}

static void pass(struct lane *lane, size_t blocks) {
    lane->at[lane->piece] += BLOCK * blocks;
    lane->blocks[lane->piece] -= blocks;
}

/* Whether there are blocks to take: of this message or of the next that nobody has. */
static int has_blocks(struct lane *lane, struct message *messages, size_t count, size_t *next) {
    for (;;) {
        while (lane->message && lane->piece < PIECES && lane->blocks[lane->piece] == 0)
            lane->piece++;
        if (lane->message && lane->piece < PIECES)
            return 1;
        lane->message = NULL;
        if (*next == count)
            return 0;
        begin(lane, &messages[(*next)++]);
    }
}

static int has_instructions, has_sixteen;

/* Asked once: a virtual machine takes longer to answer than a digest of some kilobytes does. */
__attribute__((constructor)) static void ask(void) {
    unsigned a, b, c, d;
    __builtin_cpu_init();
    has_instructions =
        __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29) && __builtin_cpu_supports("sse4.1");
    has_sixteen = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

size_t sha256_at_once(void) { return has_sixteen ? SIXTEEN : PAIR; }

static size_t fewest(struct lane *const *lanes, size_t count) {
    size_t blocks = SIZE_MAX;
    for (size_t n = 0; n < count; n++)
        if (lanes[n]->blocks[lanes[n]->piece] < blocks)
            blocks = lanes[n]->blocks[lanes[n]->piece];
    return blocks;
}

/* Go on with these lanes or some of them, as far as the first of them goes. */
static void go_on(struct lane *const *lanes, size_t count) {
    const int wide = has_sixteen && count >= ENOUGH;
    const size_t taken = wide || count < PAIR ? count : PAIR, blocks = fewest(lanes, taken);
    if (wide)
        take_sixteen(lanes, count, blocks);
    else if (taken == PAIR)
        take_two(lanes[0], lanes[1], blocks);
    else
        take_one(lanes[0], blocks);
    for (size_t n = 0; n < taken; n++)
        pass(lanes[n], blocks);
}

int vitpipe_sha256(struct message *messages, size_t count) {
    struct lane lanes[SIXTEEN];
    size_t next = 0;
    if (!has_instructions)
        return 1;
    for (size_t n = 0; n < count; n++)
        if (messages[n].head_size >= BLOCK)
            return 1;
    const size_t used = count < sha256_at_once() ? count : sha256_at_once();
    for (size_t n = 0; n < used; n++)
        lanes[n].message = NULL;
    for (;;) {
        struct lane *under_way[SIXTEEN];
        size_t have = 0;
        for (size_t n = 0; n < used; n++)
            if (has_blocks(&lanes[n], messages, count, &next))
                under_way[have++] = &lanes[n];
        if (!have)
            return 0;
        go_on(under_way, have);
    }
}

#else

int vitpipe_sha256(struct message *messages, size_t count) {
    (void)messages;
    (void)count;
    return 1;
}

size_t sha256_at_once(void) { return PAIR; }

#endif
