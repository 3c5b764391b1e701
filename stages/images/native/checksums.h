/* CRC-32 (of PNG's chunks) and Adler-32 (of zlib's streams). */

#include <stddef.h>
#include <stdint.h>

uint32_t crc32_of(const unsigned char *data, size_t size);
/* Go on from `before`, which begins as 1. */
uint32_t adler32_of(uint32_t before, const unsigned char *data, size_t size);
