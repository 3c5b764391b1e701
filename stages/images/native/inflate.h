/* Reading a zlib stream (RFC 1950, 1951) piece by piece. Whatever is not as it should be is refused. */

#include <stddef.h>
#include <stdint.h>

#include "codes.h"

enum { HISTORY = 32768 };    /* bytes before `at` that a stream may repeat */
enum { BEHIND_INPUT = 16 };  /* bytes behind the input that may be read, whatever they are */
enum { BEHIND_OUTPUT = 288 }; /* bytes behind what is wanted that may be written */

enum block { NO_BLOCK, STORED, CODED };

struct stream {
    const unsigned char *in, *end;
    uint64_t bits;
    int count; /* of bits; below zero where the input ended too early */
};

struct inflate {
    struct stream stream;
    enum block block;
    int is_last, is_damaged;
    size_t stored; /* bytes that a stored block still has */
    size_t reach;  /* how far back the stream may look */
    uint32_t codes[(1 << LOOK) + REST], far[(1 << FAR_LOOK) + FAR_REST];
};

/* Begin with a stream. 0, or 1 when its header is wrong. */
int begin_inflate(struct inflate *z, const unsigned char *in, size_t size);

/* Go on until `to` has `wanted` bytes, `at` of which it has; what it has then, less at the end of the stream, or more.
 * `is_damaged` tells what is wrong. */
size_t inflate(struct inflate *z, unsigned char *to, size_t at, size_t wanted);

/* Whether the stream ended, with that checksum and nothing behind it. */
int is_inflated(struct inflate *z, uint32_t adler);
