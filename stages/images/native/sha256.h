/* SHA-256 of several messages at once. */

#include <stddef.h>
#include <stdint.h>

enum { BLOCK = 64 };

/* `head`, shorter than a block, and then `body` go on from `state`, into which `before` bytes, whole blocks, have gone. */
struct message {
    const unsigned char *head, *body;
    uint64_t head_size, body_size, before;
    uint64_t goes_on; /* whether more will follow: then these are whole blocks, and nothing ends the message */
    uint32_t state[8];
};

static const uint32_t SHA256_START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* Go on with the state of each message. 0, or 1 where this CPU cannot. */
int vitpipe_sha256(struct message *messages, size_t count);

/* How many messages of like length at a time are digested soonest. */
size_t sha256_at_once(void);

enum { PAIR = 2, SIXTEEN = 16 };

#if defined(__x86_64__) && defined(__GNUC__)
#define SHA256_X86

extern const uint32_t SHA256_K[64];

/* Some blocks of each message, whose state goes on. These two only where the instructions for SHA are, and AVX. */
void sha256_one(uint32_t *state, const unsigned char *from, size_t blocks);
void sha256_two(uint32_t *const states[PAIR], const unsigned char *const from[PAIR], size_t blocks);
/* Only where AVX-512 is (F and BW). */
void sha256_sixteen(uint32_t *const states[SIXTEEN], const unsigned char *const from[SIXTEEN], size_t blocks);

#endif
