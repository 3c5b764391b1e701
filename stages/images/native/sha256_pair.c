/* SHA-256 by the CPU's own instructions, of one message or two: they wait for each other within one. */

#include "sha256.h"

#ifdef SHA256_X86

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

#define SHA __attribute__((target("sha,avx")))
#define INLINE static inline __attribute__((always_inline)) SHA

struct state { /* words in the order of the instructions */
    __m128i abef, cdgh;
};

/* What four rounds add, two and two. */
struct sums {
    __m128i low, high;
};

/* Of rounds 4n to 4n + 3. */
INLINE struct sums sums_of(const __m128i *words, int n) {
    const __m128i low = _mm_add_epi32(words[n & 3], _mm_load_si128((const __m128i *)(SHA256_K + 4 * n)));
    return (struct sums){low, _mm_shuffle_epi32(low, 0x0E)};
}

INLINE void low_rounds(struct state *s, const struct sums *sums) {
    s->cdgh = _mm_sha256rnds2_epu32(s->cdgh, s->abef, sums->low);
}

INLINE void high_rounds(struct state *s, const struct sums *sums) {
    s->abef = _mm_sha256rnds2_epu32(s->abef, s->cdgh, sums->high);
}

/* Words that come later are made of words[n & 3]. */
INLINE void schedule(__m128i *words, int n) {
    if (n >= 3 && n < 15) {
        const __m128i between = _mm_alignr_epi8(words[n & 3], words[(n - 1) & 3], 4);
        words[(n + 1) & 3] = _mm_sha256msg2_epu32(_mm_add_epi32(words[(n + 1) & 3], between), words[n & 3]);
    }
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

SHA void sha256_one(uint32_t *h, const unsigned char *at, size_t blocks) {
    struct state s = ordered(h);
    for (size_t block = 0; block < blocks; block++, at += BLOCK) {
        const struct state before = s;
        __m128i words[4];
        load(words, at);
#pragma GCC unroll 16
        for (int n = 0; n < 16; n++) {
            const struct sums sums = sums_of(words, n);
            low_rounds(&s, &sums);
            schedule(words, n);
            high_rounds(&s, &sums);
        }
        add(&s, &before);
    }
    write_state(&s, h);
}

/* Where both read the `same` blocks, words are made once. */
INLINE void take_two(uint32_t *const *states, const unsigned char *const *from, size_t blocks, int same) {
    struct state s = ordered(states[0]), t = ordered(states[1]);
    const unsigned char *at = from[0], *beside = from[1];
    for (size_t block = 0; block < blocks; block++, at += BLOCK, beside += BLOCK) {
        const struct state before = s, before_beside = t;
        __m128i words[4], words_beside[4];
        load(words, at);
        if (!same)
            load(words_beside, beside);
#pragma GCC unroll 16
        for (int n = 0; n < 16; n++) {
            const struct sums sums = sums_of(words, n), sums_beside = same ? sums : sums_of(words_beside, n);
            low_rounds(&s, &sums);
            low_rounds(&t, &sums_beside);
            schedule(words, n);
            if (!same)
                schedule(words_beside, n);
            high_rounds(&s, &sums);
            high_rounds(&t, &sums_beside);
        }
        add(&s, &before);
        add(&t, &before_beside);
    }
    write_state(&s, states[0]);
    write_state(&t, states[1]);
}

SHA void sha256_two(uint32_t *const states[PAIR], const unsigned char *const from[PAIR], size_t blocks) {
    if (from[0] == from[1])
        take_two(states, from, blocks, 1);
    else
        take_two(states, from, blocks, 0);
}

#endif
