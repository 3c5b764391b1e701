/* SHA-256 (FIPS 180-4) of several messages: two at a time, for the CPU's instructions wait for each other within one, or
 * sixteen at a time where AVX-512 is and there are enough.
 *
 * Digests are those of any other SHA-256. Only for CPUs with the instructions; elsewhere the caller has hashlib. */

#include <string.h>

#include "sha256.h"

enum { LENGTH = 8, PIECES = 3 };
enum { ENOUGH = 8 }; /* for sixteen at a time to be sooner, although some are of nothing */

#ifdef SHA256_X86

#include <cpuid.h>

/* Blocks of a message that lie together; the pieces follow each other. */
struct lane {
    struct message *message;
    const unsigned char *at[PIECES];
    size_t blocks[PIECES];
    int piece;
    unsigned char first[BLOCK], last[2 * BLOCK];
};

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
        __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29) && __builtin_cpu_supports("avx");
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

/* Where one lane reads what another comes to later: how many blocks that must go on alone till both can go together. */
static size_t gap(const struct lane *behind, const struct lane *ahead) {
    const uintptr_t from = (uintptr_t)behind->at[behind->piece], to = (uintptr_t)ahead->at[ahead->piece];
    return to > from && (to - from) / BLOCK < behind->blocks[behind->piece] ? (to - from) / BLOCK : 0;
}

/* Go on with these lanes or some of them, as far as the first of them goes. */
static void go_on(struct lane *const *lanes, size_t count) {
    const int wide = has_sixteen && count >= ENOUGH;
    const size_t alone = wide || count < PAIR ? 0 : gap(lanes[0], lanes[1]);
    const size_t taken = wide ? count : alone || count < PAIR ? 1 : PAIR;
    const size_t blocks = alone ? alone : fewest(lanes, taken);
    uint32_t nothing[8] = {0}, *states[SIXTEEN];
    const unsigned char *from[SIXTEEN];
    for (size_t n = 0; n < SIXTEEN; n++) { /* those that lack are the first again, into nothing */
        const struct lane *const lane = lanes[n < taken ? n : 0];
        states[n] = n < taken ? lane->message->state : nothing;
        from[n] = lane->at[lane->piece];
    }
    if (wide)
        sha256_sixteen(states, from, blocks);
    else if (taken == PAIR)
        sha256_two(states, from, blocks);
    else
        sha256_one(states[0], from[0], blocks);
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
