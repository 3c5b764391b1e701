/* SHA-256 of sixteen messages at once, each in its element of AVX-512's registers. */

#include "sha256.h"

#ifdef SHA256_X86

#include <immintrin.h>

enum { WORDS = 16, ROUNDS = 64, XOR = 0x96, CHOOSE = 0xCA, MAJORITY = 0xE8 }; /* of three, as truth tables */

#define WIDE __attribute__((target("avx512f,avx512bw")))
#define INLINE static inline __attribute__((always_inline)) WIDE
#define ROTATED(x, one, two, three) \
    _mm512_ternarylogic_epi32(_mm512_ror_epi32(x, one), _mm512_ror_epi32(x, two), _mm512_ror_epi32(x, three), XOR)
#define SHIFTED(x, one, two, three) \
    _mm512_ternarylogic_epi32(_mm512_ror_epi32(x, one), _mm512_ror_epi32(x, two), _mm512_srli_epi32(x, three), XOR)

INLINE __m512i plus(__m512i one, __m512i other) { return _mm512_add_epi32(one, other); }

/* Sixteen rows of sixteen words: what stood in column n of row m comes to column m of row n. */
INLINE void transpose(__m512i *rows) {
    __m512i t[WORDS];
    for (int n = 0; n < WORDS; n += 2) {
        t[n] = _mm512_unpacklo_epi32(rows[n], rows[n + 1]);
        t[n + 1] = _mm512_unpackhi_epi32(rows[n], rows[n + 1]);
    }
    for (int n = 0; n < WORDS; n += 4)
        for (int k = 0; k < 2; k++) {
            rows[n + 2 * k] = _mm512_unpacklo_epi64(t[n + k], t[n + 2 + k]);
            rows[n + 2 * k + 1] = _mm512_unpackhi_epi64(t[n + k], t[n + 2 + k]);
        }
    for (int n = 0; n < WORDS; n += 8)
        for (int k = 0; k < 4; k++) {
            t[n + k] = _mm512_shuffle_i32x4(rows[n + k], rows[n + 4 + k], 0x88);
            t[n + 4 + k] = _mm512_shuffle_i32x4(rows[n + k], rows[n + 4 + k], 0xDD);
        }
    for (int k = 0; k < 4; k++)
        for (int odd = 0; odd < 2; odd++) {
            rows[k + 4 * odd] = _mm512_shuffle_i32x4(t[k + 4 * odd], t[k + 4 * odd + 8], 0x88);
            rows[k + 4 * odd + 8] = _mm512_shuffle_i32x4(t[k + 4 * odd], t[k + 4 * odd + 8], 0xDD);
        }
}

/* Words of the next block of each, in words[0] .. words[15]. */
INLINE void load(__m512i *words, const unsigned char *const *from, size_t at) {
    const __m512i big_endian = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
    for (int n = 0; n < WORDS; n++)
        words[n] = _mm512_shuffle_epi8(_mm512_loadu_si512(from[n] + at), big_endian);
    transpose(words);
}

INLINE void schedule(__m512i *words, int n) {
    const __m512i before = words[(n + 1) & 15], behind = words[(n + 14) & 15];
    words[n] = plus(plus(words[n], words[(n + 9) & 15]), plus(SHIFTED(before, 7, 18, 3), SHIFTED(behind, 17, 19, 10)));
}

/* Round n of sixteen: letters move one place on in `s` by being looked for there. */
INLINE void round_of(__m512i *s, __m512i word, uint32_t k, int n) {
#define LETTER(place) s[((place) - n) & 7]
    const __m512i a = LETTER(0), b = LETTER(1), c = LETTER(2), e = LETTER(4), f = LETTER(5), g = LETTER(6);
    const __m512i waiting = plus(LETTER(7), plus(word, _mm512_set1_epi32((int)k)));
    const __m512i chosen = _mm512_ternarylogic_epi32(e, f, g, CHOOSE), turned = ROTATED(e, 6, 11, 25);
    const __m512i sum = plus(plus(waiting, chosen), turned);
    LETTER(3) = plus(plus(plus(LETTER(3), waiting), chosen), turned); /* sooner than by `sum` */
    LETTER(7) = plus(plus(ROTATED(a, 2, 13, 22), _mm512_ternarylogic_epi32(a, b, c, MAJORITY)), sum);
#undef LETTER
}

WIDE void sha256_sixteen(uint32_t *const states[SIXTEEN], const unsigned char *const from[SIXTEEN], size_t blocks) {
    uint32_t turned[8][SIXTEEN] __attribute__((aligned(64)));
    __m512i s[8], before[8], words[WORDS];
    for (int n = 0; n < 8; n++) {
        for (int lane = 0; lane < SIXTEEN; lane++)
            turned[n][lane] = states[lane][n];
        s[n] = _mm512_load_si512(turned[n]);
    }
    for (size_t at = 0; at < BLOCK * blocks; at += BLOCK) {
        for (int n = 0; n < 8; n++)
            before[n] = s[n];
        load(words, from, at);
        for (int first = 0; first < ROUNDS; first += WORDS)
#pragma GCC unroll 16
            for (int n = 0; n < WORDS; n++) {
                if (first)
                    schedule(words, n);
                round_of(s, words[n], SHA256_K[first + n], n);
            }
        for (int n = 0; n < 8; n++)
            s[n] = plus(s[n], before[n]);
    }
    for (int n = 0; n < 8; n++) {
        _mm512_store_si512(turned[n], s[n]);
        for (int lane = 0; lane < SIXTEEN; lane++)
            states[lane][n] = turned[n][lane];
    }
}

#endif
