/* CRC-32 by carry-less products where the CPU has them, else eight bytes at a time by tables, and Adler-32 in sums that fit into vectors. */

#include <string.h>

#include "checksums.h"

enum { AT_ONCE = 8 };
static uint32_t crcs[AT_ONCE][256];

__attribute__((constructor)) static void make_crcs(void) {
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t crc = n;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        crcs[0][n] = crc;
    }
    for (int behind = 1; behind < AT_ONCE; behind++)
        for (int n = 0; n < 256; n++)
            crcs[behind][n] = crcs[behind - 1][n] >> 8 ^ crcs[0][crcs[behind - 1][n] & 255];
}

static uint32_t by_tables(uint32_t crc, const unsigned char *data, size_t size) {
    for (; size >= AT_ONCE; size -= AT_ONCE, data += AT_ONCE) {
        const uint32_t low = crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24);
        crc = crcs[7][low & 255] ^ crcs[6][low >> 8 & 255] ^ crcs[5][low >> 16 & 255] ^ crcs[4][low >> 24] ^
              crcs[3][data[4]] ^ crcs[2][data[5]] ^ crcs[1][data[6]] ^ crcs[0][data[7]];
    }
    for (; size; size--)
        crc = crc >> 8 ^ crcs[0][(crc ^ *data++) & 255];
    return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

enum { LANES = 4, LANE = 16 };
#define FOLDS __attribute__((target("pclmul")))

FOLDS static inline __m128i fold(__m128i lane, __m128i by, __m128i next) {
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(lane, by, 0x00), _mm_clmulepi64_si128(lane, by, 0x11)), next);
}

static inline __m128i lane_at(const unsigned char *data) { return _mm_loadu_si128((const __m128i *)(const void *)data); }

/* Carry-less products move 64 bytes on by 64 and the four lanes together (Gopal et al. 2009, "Fast CRC computation for
 * generic polynomials using PCLMULQDQ"); what is left has the same CRC, and the tables take it from there. */
FOLDS static uint32_t by_folds(uint32_t crc, const unsigned char *data, size_t size) {
    const __m128i by_four = _mm_set_epi64x(0x1c6e41596, 0x154442bd4), by_one = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    unsigned char left[LANE];
    __m128i lanes[LANES];
    for (int n = 0; n < LANES; n++)
        lanes[n] = lane_at(data + n * LANE);
    lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128((int)crc));
    for (data += LANES * LANE, size -= LANES * LANE; size >= LANES * LANE; size -= LANES * LANE, data += LANES * LANE)
        for (int n = 0; n < LANES; n++)
            lanes[n] = fold(lanes[n], by_four, lane_at(data + n * LANE));
    for (int n = 1; n < LANES; n++)
        lanes[n] = fold(lanes[n - 1], by_one, lanes[n]);
    _mm_storeu_si128((__m128i *)(void *)left, lanes[LANES - 1]);
    return by_tables(by_tables(0, left, LANE), data, size);
}
#endif

uint32_t crc32_of(const unsigned char *data, size_t size) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (size >= LANES * LANE && __builtin_cpu_supports("pclmul"))
        return ~by_folds(0xFFFFFFFFu, data, size);
#endif
    return ~by_tables(0xFFFFFFFFu, data, size);
}

uint32_t adler32_of(uint32_t before, const unsigned char *data, size_t size) {
    enum { BASE = 65521, PIECE = 32, PIECES = 173 }; /* as many pieces as 32 bits can sum up */
    uint32_t sum = before & 0xFFFF, sums = before >> 16;
    while (size) {
        for (int piece = 0; piece < PIECES && size >= PIECE; piece++, size -= PIECE, data += PIECE) {
            uint32_t plain = 0, weighted = 0;
            for (uint32_t n = 0; n < PIECE; n++) {
                plain += data[n];
                weighted += (PIECE - n) * data[n];
            }
            sums += PIECE * sum + weighted;
            sum += plain;
        }
        for (int n = 0; n < PIECE && size && size < PIECE; n++, size--)
            sums += sum += *data++;
        sum %= BASE, sums %= BASE;
    }
    return sums << 16 | sum;
}
